"""A source whose gradient stays in the head: the network is as without the term, the head as with it."""

import pytest
import torch
from tiny_models import ids
from toy_view import llama, objective

SOURCES = {
    "linear": "source: {depth: 1/2%s}, target: {kind: online, tap: {depth: 1, at: next}}, loss: mse",
    "readout": "source: {depth: 1/2%s}, target: {kind: tokens}, loss: next_token, decode_with: norm_and_lm_head",
    "dynamics": "source: {depth: 1/2, norm: final%s}, target: {kind: online, tap: {depth: 1/2, at: next}}, loss: mse, "
    "predictor: {kind: dynamics}",
    "head": "source: {depth: 1/2, norm: final, head: code%s}, target: {kind: ema, tap: {depth: 1/2, at: next, "
    "head: code}}, loss: mse, predictor: {kind: identity}",
}
BATCH = {"input_ids": ids(2, 9), "labels": ids(2, 9)}


def gradients(kind: str | None, into: str = ""):
    """Gradients of the network and of the heads, by name."""
    terms = "" if kind is None else f"terms: {{a: {{kind: predict, {SOURCES[kind] % into}}}}}\n"
    model = llama(terms + "heads: {code: {kind: projector, dim: 6, hidden: 8}}\nlm_weight: 1.0")
    model(**BATCH).loss.backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return [{n: g for n, g in found.items() if n.startswith("latent.") == heads} for heads in (False, True)]


@pytest.mark.parametrize("kind", SOURCES)
def test_the_network_learns_nothing_from_it_and_the_head_all(kind):
    (network, head), (alone, _), (both, other) = (
        gradients(kind, ", into: head"), gradients(None), gradients(kind)
    )  # fmt: skip
    assert network.keys() == alone.keys()
    for name, grad in alone.items():
        assert torch.equal(network[name], grad), name
    assert any(not torch.equal(both[name], grad) for name, grad in alone.items())
    assert head.keys() == other.keys()
    assert any(grad.any() for grad in head.values())
    for name, grad in other.items():
        torch.testing.assert_close(head[name], grad, msg=name)


def test_every_cell_of_a_ladder_and_what_cannot_be():
    cells = objective("terms: {a: {kind: levels, sources: [1/2, 1], targets: [data, 1], into: head}}").resolve(4)
    assert [cell.source.into for cell in cells.values()] == ["head"] * 4
    refused = {
        SOURCES["linear"].replace(
            "at: next}", "at: next}, stop_grad: false"
        ): "but the target trains it; set stop_grad",
        SOURCES["linear"] + ", predictor: {kind: identity}": "trains the head alone, and there is none",
        SOURCES["linear"] + ", weight: {grad_ratio: 0.1}": "measured at the source, which has no gradient",
        SOURCES["linear"].replace("at: next}", "at: next, into: head}"): "leave 'into' out of its tap",
    }
    for text, message in refused.items():
        with pytest.raises(ValueError, match=message):
            objective(f"terms: {{a: {{kind: predict, {text % ', into: head'}}}}}")
