"""Sinkhorn against loops, closed forms and the traps it is known for."""

import pytest
import torch
from test_variance_covariance_koleo import draw
from tolerance import naive_sinkhorn

from latentlm.losses import sinkhorn


@pytest.mark.parametrize("iterations", [1, 3, 20])
def test_sinkhorn_matches_the_equation(iterations):
    logits = draw(0, 6, 4)
    ours = sinkhorn(logits, 0.5, iterations)
    torch.testing.assert_close(ours.exp(), naive_sinkhorn(logits, 0.5, iterations), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(ours.exp().sum(-1), torch.ones(6, dtype=torch.float64))


def test_sinkhorn_balances_prototypes():
    logits = draw(0, 64, 16)
    after_few, after_many = (sinkhorn(logits, 0.5, count).exp().sum(0) for count in (3, 100))
    assert (after_few - 4).abs().max() < 0.5
    assert (after_many - 4).abs().max() < 0.01
    same = sinkhorn(torch.full((5, 8), 3.0, dtype=torch.float64), 0.05)
    torch.testing.assert_close(same.exp(), torch.full((5, 8), 1 / 8, dtype=torch.float64))


def test_sinkhorn_shifts():
    logits = draw(1, 8, 4)
    per_prototype, per_sample = draw(2, 1, 4), draw(3, 8, 1)
    torch.testing.assert_close(sinkhorn(logits + per_prototype, 0.5), sinkhorn(logits, 0.5), rtol=1e-12, atol=1e-12)
    assert (sinkhorn(logits + per_sample, 0.5) - sinkhorn(logits, 0.5)).abs().max() > 0.05


def test_sinkhorn_does_not_overflow():
    logits = (100 * draw(4, 6, 4)).float()
    assert (logits / 0.05).exp().isinf().any()  # what an unshifted exponential makes of it
    for dtype in (torch.float32, torch.bfloat16):
        balanced = sinkhorn(logits.to(dtype), 0.05)
        assert balanced.dtype == torch.float32
        torch.testing.assert_close(balanced.exp().sum(-1), torch.ones(6))


def test_positions_are_balanced_by_themselves():
    """CAPI: with positions as groups, what only tells the position makes every prototype equally likely."""
    logits = draw(5, 3, 8, 4)  # positions, images, prototypes
    torch.testing.assert_close(sinkhorn(logits, 0.5)[1], sinkhorn(logits[1], 0.5))
    positional = 10 * draw(6, 3, 1, 4).expand(3, 8, 4)
    torch.testing.assert_close(sinkhorn(positional, 0.5).exp(), torch.full((3, 8, 4), 0.25, dtype=torch.float64))
    together = sinkhorn(positional.flatten(0, 1), 0.5).exp()
    assert together.max() > 0.5  # balanced over all patches the position itself is a cluster
