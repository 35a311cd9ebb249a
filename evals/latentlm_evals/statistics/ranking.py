"""Ranks of the right answer among candidates, ties counted fairly: by log-probability, and of states by cosine.

Letters: ``n`` queries, ``c`` candidates, ``m`` keys, ``d`` width.
"""

import math

import numpy as np
import torch
from torch import Tensor

from latentlm_evals.statistics.arrays import Array, Labels, unit

OPTIONS = 4  # of the multiple-choice question that a ranked pool stands for
LEVEL = 1e-9  # closer than this is equal: removing a mean parts two equal log-probs by a few ulp


def expected_reciprocal_rank(above: Labels, level: Labels) -> Array:
    """``mean of 1 / rank over rank = above + 1 .. above + level``: ties are broken by lot, so equal keys are at chance.

    1 / (middle rank) would put a constant model below `chance_mrr`.

    Checked:   tests/evals/coherence/test_binding.py - random orders of the tied keys, equal keys.

    Args:
        above: candidates before the right one, ``[n]``.
        level: candidates level with it, itself among them.
    """
    sums = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int((above + level).max()) + 1))])
    return (sums[above + level] - sums[above]) / level


def chance_mrr(num_candidates: int) -> float:
    """Mean reciprocal rank of a blind guess."""
    return float((1 / np.arange(1, num_candidates + 1)).mean())


def centre(scores: Tensor) -> Tensor:
    """Remove each candidate's own mean log-prob, so that a generally likely (or short) answer gains nothing by it.

    The mean runs over all items, right or wrong: under the null every column of a row is then the same.
    """
    return scores - scores.mean(0, keepdim=True)


def gold_ranks(scores: Tensor, gold: Tensor) -> Tensor:
    """1 = the right answer is on top; ties share the middle of their ranks, so a constant model is at chance."""
    above, level = _above_and_level(scores, gold)
    return above + (level + 1) / 2


def reciprocal_ranks(scores: Tensor, gold: Tensor) -> Tensor:
    """`expected_reciprocal_rank` of each right answer ``[n]``."""
    above, level = _above_and_level(scores, gold)
    return torch.from_numpy(expected_reciprocal_rank(above.numpy(), level.numpy()))


def beats_three(scores: Tensor, gold: Tensor) -> Tensor:
    """Chance that the right answer is the likeliest of four when three wrong ones are drawn at random.

    For rank r of c answers it is binom(c - r, 3) / binom(c - 1, 3), here averaged over every order of ties: 1/4 for a
    constant model. Needs c >= 4.
    """
    num, (above, level) = scores.shape[1], _above_and_level(scores, gold)
    fours = torch.tensor([math.comb(k, OPTIONS) for k in range(num + 1)], dtype=torch.float64)
    # the sum of binom(c - r, 3) over a run of ranks telescopes into a difference of binom(., 4)
    return (fours[num - above] - fours[num - above - level]) / (level * math.comb(num - 1, OPTIONS - 1))


def _above_and_level(scores: Tensor, gold: Tensor) -> tuple[Tensor, Tensor]:
    """How many answers are above the right one, and how many level with it, itself among them."""
    lead = scores - scores.gather(1, gold[:, None])
    return (lead > LEVEL).sum(1), (lead.abs() <= LEVEL).sum(1)


def by_cosine(queries: Array, keys: Array, gold: Labels | None = None) -> Array:
    """Reciprocal rank ``[n]`` of each query's own key (number `gold`, else its own) by cosine."""
    scores = unit(queries) @ unit(keys).T
    own = scores[np.arange(len(queries)), np.arange(len(queries)) if gold is None else gold][:, None]
    # rounding must not order equal keys
    return expected_reciprocal_rank((scores > own + LEVEL).sum(1), (np.abs(scores - own) <= LEVEL).sum(1))
