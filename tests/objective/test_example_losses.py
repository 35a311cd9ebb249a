"""Terms that see an anchor whole: losses over its positions, and means in which every anchor counts once."""

import pytest
import torch
from toy_view import objective, report, terms, view

from latentlm.losses import Gram, Mse

SPANS = {"spans": [[[0, 1, 2], [3, -1, 4]], [[2, -1, -1], [-1, -1, -1]]]}
SEGMENTS = [[0] * 6, [0] * 6]
TERM = """
terms:
  kept:
    kind: predict
    source: {{depth: block 2, at: spans}}
    target: {{kind: online, tap: {{depth: block 3, at: spans}}}}
    predictor: identity
    loss: {loss}
    reduction: {reduction}
"""


def rows(seen, depth):
    """States of each anchor's positions, by hand."""
    state = seen.states[depth]
    return [state[0, [0, 1, 2]], state[0, [3, 4]], state[1, [2]]]


def test_a_loss_over_the_positions_of_an_anchor():
    seen = view(SEGMENTS, SPANS)
    got = report(terms(TERM.format(loss="gram", reduction="per_position")), seen)["kept"]
    expected = []
    for source, target in zip(rows(seen, 2), rows(seen, 3), strict=True):
        every = torch.ones(1, len(source), dtype=torch.bool)
        expected.append(Gram()(source[None], target[None], every).flatten())
    torch.testing.assert_close(got.sum, torch.cat(expected).sum())
    assert got.count == 6


@pytest.mark.parametrize("loss", ["mse", "gram"])
def test_every_anchor_counts_once(loss):
    seen = view(SEGMENTS, SPANS)
    built = terms(TERM.format(loss=loss, reduction="per_example"))
    got = report(built, seen)["kept"]
    means = []
    for source, target in zip(rows(seen, 2), rows(seen, 3), strict=True):
        every = torch.ones(1, len(source), dtype=torch.bool)
        values = Mse()(source, target) if loss == "mse" else Gram()(source[None], target[None], every)
        means.append(values.mean())
    torch.testing.assert_close(got.sum, sum(means))
    assert got.count == built.counts(seen)["kept"] == 3
    torch.testing.assert_close(got.value, sum(means) / 3)


@pytest.mark.parametrize("reduction", ["per_position", "per_example"])
def test_what_lies_between_the_positions_is_never_read(reduction):
    built = terms(TERM.format(loss="gram", reduction=reduction))
    clean, dirty = view(SEGMENTS, SPANS), view(SEGMENTS, SPANS)
    with torch.no_grad():
        for depth in (2, 3):
            dirty.states[depth][0, 5], dirty.states[depth][1, :2], dirty.states[depth][1, 3:] = [torch.nan] * 3
    values = [report(built, seen)["kept"].value for seen in (clean, dirty)]
    torch.testing.assert_close(*values, rtol=0, atol=0)
    grads = [torch.autograd.grad(v, seen.states[2])[0] for v, seen in zip(values, (clean, dirty), strict=True)]
    torch.testing.assert_close(*grads, rtol=0, atol=0)


def test_nothing_to_say():
    empty = {"spans": torch.full((2, 2, 3), -1)}
    for loss in ("mse", "gram"):
        got = report(terms(TERM.format(loss=loss, reduction="per_example")), view(SEGMENTS, empty))["kept"]
        assert (got.sum.item(), got.count.item(), got.value.item()) == (0, 0, 0)


@pytest.mark.parametrize("extra", ["shuffle: true", "decode_with: lm_head"])
def test_what_a_whole_anchor_cannot_have(extra):
    with pytest.raises(ValueError, match="whole anchors"):
        objective(TERM.format(loss="gram", reduction="per_position") + f"    {extra}\n")
