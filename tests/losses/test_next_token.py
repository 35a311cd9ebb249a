"""NextToken against a loop over positions, and what ignored positions must not do."""

import math

import pytest
import torch
import torch.nn.functional as F
from tolerance import assert_as_accurate

from latentlm.losses import NextToken


def naive(logits, ids):
    rows = []
    for row, wanted in zip(logits.flatten(0, -2), ids.flatten().tolist(), strict=True):
        rows.append(sum(x.exp() for x in row).log() - row[wanted] if wanted != -100 else 0 * row[0])
    return torch.stack(rows).view(ids.shape)


@pytest.fixture
def batch():
    logits = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return logits, torch.tensor([[3, 0, -100, 6], [-100, 1, 1, -100]])


def test_matches_the_equation(batch):
    torch.testing.assert_close(NextToken()(*batch), naive(*batch), rtol=1e-10, atol=1e-12)
    assert_as_accurate(NextToken(), naive, *batch)


def test_known_answers(batch):
    logits, ids = batch
    assert NextToken()(torch.zeros(5, 16), torch.arange(5)).tolist() == pytest.approx([math.log(16)] * 5)
    mean = NextToken()(logits, ids).sum() / (ids != -100).sum()
    torch.testing.assert_close(mean, F.cross_entropy(logits.flatten(0, 1), ids.flatten()))


def test_ignored_positions_are_never_read(batch):
    logits, ids = batch
    values = NextToken()(logits, ids)
    spoiled = logits.masked_fill((ids == -100)[..., None], torch.nan).requires_grad_()
    again = NextToken()(spoiled, ids)
    torch.testing.assert_close(again, values, rtol=0, atol=0)
    again.sum().backward()
    assert spoiled.grad is not None
    assert spoiled.grad.isfinite().all()
    assert spoiled.grad[ids == -100].abs().sum() == 0


def test_nothing_but_ignored_positions_is_zero_with_a_gradient(batch):
    logits = batch[0].requires_grad_()
    values = NextToken()(logits, torch.full((2, 4), -100))
    values.sum().backward()
    assert values.abs().sum() == 0
    assert logits.grad is not None


def test_other_ignore_value(batch):
    logits, ids = batch
    torch.testing.assert_close(NextToken(ignore=-1)(logits, ids.masked_fill(ids == -100, -1)), NextToken()(logits, ids))
