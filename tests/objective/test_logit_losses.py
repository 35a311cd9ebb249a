"""Losses through the output head: the same value and gradient as with all logits at once, which never exist."""

import pytest
import torch
import torch.nn.functional as F
from tiny_models import VOCAB
from torch.utils._python_dispatch import TorchDispatchMode
from toy_view import DIM, report, terms, view

from latentlm.objective import logit_losses as through

DATA = "{kind: tokens}"
STATE = "{kind: online, tap: {depth: 1, norm: final, at: next}}"
TERM = """
terms:
  a:
    kind: predict
    source: {depth: 1/2}
    target: %s
    predictor: linear
    decode_with: %s
    loss: %s
"""
CASES = [
    (DATA, "lm_head", "next_token"),
    (DATA, "norm_and_lm_head", "next_token"),
    (STATE, "lm_head", "{kind: kl, temperature: 2.0}"),
    (STATE, "norm_and_lm_head", "{kind: soft_cross_entropy, target_temperature: 0.5}"),
    (STATE, "lm_head", "mse"),
]
SEGMENTS = [[0, 0, 0, 0, 1, 1, 1, -1], [0] * 8, [0, 0, 0, -1, -1, -1, -1, -1]]


class Largest(TorchDispatchMode):
    """Positions in the largest tensor of logits that any operation gives; a matrix of weights is none."""

    rows = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else (out,):
            if isinstance(each, torch.Tensor) and each.shape[-1:] == (VOCAB,) and each.shape != (DIM, VOCAB):
                self.rows = max(self.rows, each.numel() // VOCAB)
        return out


@pytest.fixture
def pieces(monkeypatch):
    monkeypatch.setattr(through, "LOGITS", 3 * VOCAB)
    monkeypatch.setattr(through, "ROWS", 2)


def run(case, seen):
    built = terms(TERM % case)
    loss = report(built, seen)["a"].sum
    weights = [*built.parameters(), *seen.norm.parameters(), *seen.states.values()]
    return loss, torch.autograd.grad(loss, weights, allow_unused=True)


@pytest.mark.parametrize("case", CASES)
def test_pieces_equal_all_logits_at_once(case, pieces):
    seen = view(SEGMENTS)
    loss, grads = run(case, seen)

    built = terms(TERM % case)
    with torch.no_grad():
        keep = built["a"].spec.mask(seen)[:, 0]
    guess = built["a"].predictor.network(seen.states[2].flatten(0, 1)[keep])
    if case[0] == DATA:
        goal = seen.labels.flatten()[keep]
    else:
        goal = seen.norm(seen.states[4].flatten(0, 1)[keep.nonzero()[:, 0] + 1])
    if case[1] == "norm_and_lm_head":
        guess, goal = seen.norm(guess), goal if case[0] == DATA else seen.norm(goal)
    logits = seen.readout(guess)
    if case[0] == DATA:
        value = F.cross_entropy(logits, goal, reduction="sum")
    else:
        value = built["a"].spec.loss(logits, seen.readout(goal.detach())).sum()
    weights = [*built.parameters(), *seen.norm.parameters(), *seen.states.values()]
    torch.testing.assert_close(loss, value, rtol=1e-12, atol=1e-12)
    for one, other in zip(grads, torch.autograd.grad(value, weights, allow_unused=True), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_logits_of_all_positions_never_exist(case, pieces):
    with Largest() as largest:
        run(case, view(SEGMENTS))
    assert 0 < largest.rows <= 3


def test_what_is_kept_for_the_backward_is_as_wide_as_a_latent(pieces):
    found = report(terms(TERM % CASES[2]), view(SEGMENTS))["a"]
    node = found.sum.grad_fn.next_functions[0][0]
    assert [tensor.shape for tensor in node.saved_tensors] == [(int(found.count), DIM)]


def test_gradients_are_those_of_finite_differences(pieces):
    seen, built = view(SEGMENTS), terms(TERM % CASES[2])
    guess = torch.randn(5, DIM, dtype=torch.float64, requires_grad=True)
    goal = torch.randn(5, DIM, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda g: through.values_through(built["a"].spec, g, goal, seen, seen), guess)


def test_a_loss_over_all_rows_and_a_forward_without_gradient():
    seen = view(SEGMENTS)
    text = TERM % (STATE, "lm_head", "{kind: info_nce}")
    assert report(terms(text), seen)["a"].sum.requires_grad
    for case in CASES:
        with torch.no_grad():
            value = report(terms(TERM % case), seen)["a"].sum
        assert not value.requires_grad
        torch.testing.assert_close(value, run(case, seen)[0])
