"""ViTs of every family: what is tapped, what the network sees of its input, and what its teachers see."""

import copy

import pytest
import torch
import yaml
from checkpointing import recompute
from tiny_vits import FAMILIES, PATCHES, attach, images, vit

from latentlm import get_latent_model
from latentlm.attach.state import latent_state
from latentlm.backbones import find_backbone
from latentlm.monitor.image_batches import STEPS

TERM = "terms: {a: {kind: predict, source: {depth: 1/2, at: visible}, target: %s, predictor: transformer, loss: mse}}"
PIXELS = TERM % "{kind: pixels, at: masked}"
EMA = TERM % "{kind: ema, tap: {depth: 1/2, at: masked}, momentum: 0.5}"


def watch(model) -> list:
    seen = []
    model.latent.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    return seen


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_the_class_token_and_the_patches_without_registers(family):
    model, batch = attach(PIXELS, family), images(rows=2, views=2, kept=PATCHES - 1)
    del batch["latent"]["keep"]
    seen = watch(model)
    model(**batch)
    plain = vit(family)
    want = plain(batch["pixel_values"], output_hidden_states=True).hidden_states[2]
    front = want.shape[1] - PATCHES
    want = torch.cat([want[:, :1], want[:, front:]], 1).reshape(2, 2 * (1 + PATCHES), -1)
    torch.testing.assert_close(seen[0].view.states[2], want)
    assert seen[0].view.segments[0].tolist() == [0] * (1 + PATCHES) + [1] * (1 + PATCHES)


@pytest.mark.parametrize("family", FAMILIES)
def test_dropping_patches_is_running_the_blocks_on_the_others_alone(family):
    model, batch = attach(PIXELS, family), images(kept=5)
    seen = watch(model)
    model(**batch)
    plain, keep = vit(family), batch["latent"]["keep"]
    layers = find_backbone(plain).layers
    state = plain.embeddings(batch["pixel_values"])
    front = state.shape[1] - PATCHES
    for row, kept in enumerate(keep):
        alone = torch.cat([state[row : row + 1, :front], state[row : row + 1, front + kept]], 1)
        more = {}
        if hasattr(plain, "rope_embeddings"):
            angles = plain.rope_embeddings(batch["pixel_values"])
            more["position_embeddings"] = tuple(part[kept] for part in angles)
        for layer in layers[:2]:
            alone = layer(alone, **more)
        found = seen[0].view.states[2][row]
        torch.testing.assert_close(found[0], alone[0, 0])
        torch.testing.assert_close(found[1 + kept], alone[0, front:])
    gone = seen[0].view.segments == -1
    assert (seen[0].view.states[2][gone] == 0).all()
    assert gone.sum(1).tolist() == [PATCHES - 5] * 3


@pytest.mark.parametrize("family", ["ViT", "DINOv3ViT"])
def test_rows_that_keep_fewer_patches_are_as_if_alone(family):
    model, batch = attach(PIXELS, family), images(kept=5)
    batch["latent"]["keep"][0, 3:] = -1
    batch["latent"]["visible"][0, :, 3:] = -1
    seen = watch(model)
    model(**batch)
    alone = {"pixel_values": batch["pixel_values"][:1], "latent": {"views": torch.arange(1)}}
    alone["latent"] |= {"keep": batch["latent"]["keep"][:1, :3]}
    alone["latent"] |= {"visible": batch["latent"]["visible"][:1, :, :3], "masked": batch["latent"]["masked"][:1]}
    model(**alone)
    torch.testing.assert_close(seen[0].view.states[2][0], seen[1].view.states[2][0])


@pytest.mark.parametrize("drop", [True, False])
def test_teachers_see_the_whole_image(drop):
    model, batch = attach(EMA), images(kept=4, drop=drop)
    seen = watch(model)
    model(**batch)
    want = vit()(batch["pixel_values"], output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(seen[0].teacher_views["ema"].states[2], want)
    assert (seen[0].teacher_views["ema"].segments == 0).all()
    assert not torch.allclose(seen[0].view.states[2], want)


@pytest.mark.parametrize("family", FAMILIES)
def test_teachers_skip_views_that_nothing_reads(family):
    text = EMA.replace("at: visible", "at: cls_2").replace("at: masked", "at: cls_2").replace("narrow", "linear")
    model, batch = attach(text, family), images(rows=2, views=3)
    batch["latent"]["cls_2"] = torch.tensor([[[0], [34]]] * 2)
    seen, rows = watch(model), []
    latent_state(model).backbone.layers[0].register_forward_pre_hook(lambda layer, args: rows.append(len(args[0])))
    whole = model(**batch).loss
    batch["latent"]["taught"] = torch.tensor([0, 2])
    part = model(**batch).loss
    assert rows == [6, 6, 4, 6]  # teacher, network
    torch.testing.assert_close(part, whole)
    states = [each.teacher_views["ema"].states[2].unflatten(1, (3, -1)) for each in seen]
    torch.testing.assert_close(states[1][:, [0, 2]], states[0][:, [0, 2]])
    assert states[1][:, 1].isnan().all()


@pytest.mark.parametrize("family", ["ViT", "Dinov2", "DINOv3ViT"])
def test_a_mask_token_stands_where_the_mask_is_and_hides_the_patch(family):
    model, batch = attach(PIXELS, family), images(kept=4, drop=False)
    seen = watch(model)
    model(**batch)
    other = copy.deepcopy(batch)
    hidden = batch["latent"]["mask"].view(-1, 4, 4).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    other["pixel_values"] = torch.where(hidden, 9.0, batch["pixel_values"])
    model(**other)
    torch.testing.assert_close(seen[0].view.states[2], seen[1].view.states[2])
    if family != "ViT":  # which has a mask token of its own only where it is asked for
        plain = vit(family)
        out = plain(batch["pixel_values"], bool_masked_pos=batch["latent"]["mask"], output_hidden_states=True)
        torch.testing.assert_close(seen[0].view.states[2][:, 0], out.hidden_states[2][:, 0])


def test_activation_checkpointing_changes_no_gradient():
    batch = images(kept=5)
    batch["latent"]["keep"][0, 3:] = -1
    batch["latent"]["visible"][0, :, 3:] = -1
    found = []
    for checkpointed in (False, True):
        model = attach(EMA)
        if checkpointed:
            recompute(model, use_reentrant=False)
        model(**batch).loss.backward()
        found.append([w.grad for w in model.layers[0].parameters()])
    torch.testing.assert_close(*found)


def test_the_loss_of_a_vit_is_the_latent_loss_and_in_evaluation_nothing_changes():
    model, batch = attach(PIXELS), images(kept=5)
    out = model(**batch)
    assert out.loss is not None
    assert out.loss == out.latent_loss
    model.eval()
    plain = vit()(batch["pixel_values"])
    torch.testing.assert_close(model(**batch).last_hidden_state, plain.last_hidden_state)
    twin = copy.deepcopy(model).train()
    assert latent_state(twin).model is twin
    assert twin(**batch).loss == out.loss


def test_blocks_that_take_no_attention_mask_can_drop_equally_many_patches_only():
    def as_dinov2_before_transformers_5_18(hidden_states, *args, **kwargs):
        return type(layer).forward(layer, hidden_states)

    plain = vit()
    layer = find_backbone(plain).layers[0]
    layer.forward = as_dinov2_before_transformers_5_18
    model = get_latent_model(plain, {"lm_weight": 0, "monitor_every": 0, **yaml.safe_load(PIXELS)}).train()
    latent_state(model).image_batches = STEPS
    batch = images(kept=5)
    torch.testing.assert_close(model(**batch).loss, attach(PIXELS)(**batch).loss)
    with pytest.raises(ValueError, match="causal needs attention masks, and this network has none"):
        model(**batch | {"latent": {"views": torch.arange(1), "causal": torch.ones((), dtype=torch.bool)}})
    batch["latent"]["keep"][0, 3:] = -1
    with pytest.raises(ValueError, match="keep fewer patches than others, and this network has no attention mask"):
        model(**batch)


def test_what_cannot_be_is_told():
    with pytest.raises(ValueError, match="ViTModel has no own loss; set it to 0"):
        get_latent_model(vit(), {"lm_weight": 1.0})
    with pytest.raises(ValueError, match="the model has 4 blocks"):
        attach(PIXELS.replace("1/2", "block 7"))
    model = vit()
    model.config.patch_size = 5
    with pytest.raises(ValueError, match="patch_size 5 x 5 does not divide image_size 16 x 16"):
        get_latent_model(model, {"lm_weight": 0})
    head = "heads: {h: {kind: projector, dim: 4, norm: batch}}"
    term = "terms: {a: {kind: regularize, source: {depth: 1, at: cls, head: h}, loss: koleo, sample_axis: positions}}"
    model = attach(f"{head}\n{term}")
    with pytest.raises(ValueError, match="needs at least 2 rows over all ranks, got 1"):
        model(**images(rows=1))
