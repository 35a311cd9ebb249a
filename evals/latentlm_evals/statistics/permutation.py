"""Permutation test of the log-probability of right answers against exchanged ones.

Letters: ``i`` questions, ``c`` candidate answers, ``e`` entities that are the right answer of some question.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def delta_logp(scores: Tensor, gold: Tensor) -> Tensor:
    """Log P(gold) - mean log P(others), one value per question."""
    return _deltas(scores).gather(1, gold[:, None])[:, 0]


Block = tuple[Tensor, Tensor]  # log-probs [i c] of one pool, and the column of the right answer [i]


def permutation_test(blocks: Sequence[Block], *, seed: int = 0, rounds: int = 2000) -> tuple[float, float] | None:
    """Is the mean delta of log-probs larger than when the entities swap answers? One-sided p and sd of the null.

    All questions of an entity get the same wrong answer in a round (not question by question: templates of a fact are
    not independent), and answers are swapped inside a pool only. None where no pool has two entities.
    """
    draw = torch.Generator().manual_seed(seed)
    observed, null, questions = 0.0, torch.zeros(rounds, dtype=torch.float64), 0
    for scores, gold in blocks:
        deltas = _deltas(scores)
        entities, of_item = gold.unique(return_inverse=True)
        if len(entities) < 2:
            continue
        table = torch.zeros(len(entities), scores.shape[1], dtype=torch.float64).index_add_(0, of_item, deltas)
        table = table[:, entities]  # e e: the total delta of a row's questions if the column were their answer
        shuffles = torch.rand(rounds, len(entities), generator=draw).argsort(1)
        null += table.gather(1, shuffles.T).sum(0)
        observed += float(table.diagonal().sum())
        questions += len(gold)
    if questions == 0:
        return None
    # rounding may part two equal sums by a few ulp, so "at least as large" needs a hair of slack
    slack = 1e-9 * (1 + abs(observed))
    return (1 + int((null >= observed - slack).sum())) / (1 + rounds), float(null.std()) / questions


def _deltas(scores: Tensor) -> Tensor:
    """Log P(c) - mean log P(all but c), for every candidate c as if it were the right one."""
    num = scores.shape[1]
    return (num * scores - scores.sum(1, keepdim=True)) / (num - 1)
