"""Ranks of the right answer among candidates, ties counted fairly."""

import math

import torch
from torch import Tensor

OPTIONS = 4  # of the multiple-choice question that a ranked pool stands for


LEVEL = 1e-9  # closer than this is equal: removing a mean parts two equal log-probs by a few ulp


def centre(scores: Tensor) -> Tensor:
    """Remove each candidate's own mean log-prob, so that a generally likely (or short) answer gains nothing by it.

    The mean runs over all items, right or wrong: under the null every column of a row is then alike.
    """
    return scores - scores.mean(0, keepdim=True)


def gold_ranks(scores: Tensor, gold: Tensor) -> Tensor:
    """1 = the right answer is on top; ties share the middle of their ranks, so a constant model is at chance."""
    above, level = _places(scores, gold)
    return above + (level + 1) / 2


def reciprocal_ranks(scores: Tensor, gold: Tensor) -> Tensor:
    """Mean of 1 / rank over every order of the answers that tie with the right one.

    So a constant model is at `chance_mrr`; 1 / (middle rank) would put it below.
    """
    above, level = _places(scores, gold)
    sums = torch.tensor([0.0, *(1 / rank for rank in range(1, scores.shape[1] + 1))], dtype=torch.float64).cumsum(0)
    return (sums[above + level] - sums[above]) / level


def beats_three(scores: Tensor, gold: Tensor) -> Tensor:
    """Chance that the right answer is the likeliest of four when three wrong ones are drawn at random.

    For rank r of c answers it is binom(c - r, 3) / binom(c - 1, 3), here averaged over every order of ties: 1/4 for a
    constant model. Needs c >= 4.
    """
    num, (above, level) = scores.shape[1], _places(scores, gold)
    fours = torch.tensor([math.comb(k, OPTIONS) for k in range(num + 1)], dtype=torch.float64)
    # the sum of binom(c - r, 3) over a run of ranks telescopes into a difference of binom(., 4)
    return (fours[num - above] - fours[num - above - level]) / (level * math.comb(num - 1, OPTIONS - 1))


def chance_mrr(num_candidates: int) -> float:
    """Mean reciprocal rank of a blind guess."""
    return sum(1 / rank for rank in range(1, num_candidates + 1)) / num_candidates


def _places(scores: Tensor, gold: Tensor) -> tuple[Tensor, Tensor]:
    """How many answers are above the right one, and how many level with it, itself among them."""
    lead = scores - scores.gather(1, gold[:, None])
    return (lead > LEVEL).sum(1), (lead.abs() <= LEVEL).sum(1)
