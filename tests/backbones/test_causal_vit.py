"""Causal attention in a ViT: what comes later in raster order changes nothing before it; NEPA is its equation."""

import pytest
import torch
import torch.nn.functional as F
from checkpointing import recompute
from tiny_vits import FAMILIES, PATCHES, attach, images

from latentlm.attach.state import latent_state

NEPA = """
terms: {next_patch: {kind: predict, source: {depth: 1, norm: final, at: now}, predictor: identity, loss: cosine,
    target: {kind: online, tap: {depth: 0, at: {kind: next}}, stop_grad: true}}}
"""


def causal(**more) -> dict:
    batch = images(rows=2)
    batch["latent"] = {"views": torch.arange(1), "causal": torch.ones((), dtype=torch.bool)}
    return batch | more


def states(model, batch):
    seen = []
    hook = model.latent.register_forward_pre_hook(lambda module, args: seen.append(args[0].view))
    loss = model(**batch).loss
    hook.remove()
    return seen[0], loss


@pytest.mark.parametrize("family", FAMILIES)
def test_a_later_patch_changes_no_earlier_state(family):
    model, batch = attach(NEPA, family), causal()
    if not latent_state(model).backbone.grid.attention:
        pytest.skip(f"blocks of {family} take no attention mask in this release of transformers")
    other = batch["pixel_values"].clone()
    other[:, :, 8:12, 4:8] += 1  # patch 9 of 16
    view, _ = states(model, batch)
    changed, _ = states(model, batch | {"pixel_values": other})
    apart = (view.states[4] - changed.states[4]).abs().amax((0, 2))
    assert (apart[: 1 + 9] == 0).all()
    assert (apart[1 + 9 :] > 0).all()


def test_nepa_is_its_equation():
    model, batch = attach(NEPA), causal()
    view, loss = states(model, batch)
    total = 0.0
    for row in range(2):
        top = model.layernorm(view.states[4][row])
        for j in range(PATCHES):
            total += 1 - F.cosine_similarity(top[j], view.states[0][row, j + 1].detach(), dim=0)
    torch.testing.assert_close(loss, total / (2 * PATCHES))


def test_blocks_that_run_again_in_the_backward_are_causal_too():
    found = []
    for checkpointed in (False, True):
        model = attach(NEPA)
        if checkpointed:
            recompute(model, use_reentrant=False)
        model(**causal()).loss.backward()
        found.append([weight.grad for weight in model.layers[0].parameters()])
    torch.testing.assert_close(*found)
