"""Numbers from answers: ranks inside a pool, the permutation null over entities, the bootstrap over facts.

Letters: ``i`` items, ``c`` candidate answers, ``e`` entities that are the right answer of some item.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Block = tuple[Tensor, Tensor]  # log-probs [i c] of one pool, and the column of the right answer [i]
OPTIONS = 4  # of the multiple-choice question that a ranked pool stands for
_TAIL = 0.025  # outside either end of an interval
_LEVEL = 1e-9  # closer than this is equal: removing a mean parts two equal log-probs by a few ulp


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


def delta_logp(scores: Tensor, gold: Tensor) -> Tensor:
    """Log P(gold) - mean log P(others), one value per item."""
    return _deltas(scores).gather(1, gold[:, None])[:, 0]


def permutation_test(blocks: Sequence[Block], *, seed: int = 0, rounds: int = 2000) -> tuple[float, float] | None:
    """Is the mean delta of log-probs larger than when the entities swap answers? One-sided p and sd of the null.

    All items of an entity get the same wrong answer in a round (never item by item: templates of a fact are not
    independent), and answers are swapped inside a pool only. None where no pool has two entities.
    """
    draw = torch.Generator().manual_seed(seed)
    observed, null, items = 0.0, torch.zeros(rounds, dtype=torch.float64), 0
    for scores, gold in blocks:
        deltas = _deltas(scores)
        entities, of_item = gold.unique(return_inverse=True)
        if len(entities) < 2:
            continue
        table = torch.zeros(len(entities), scores.shape[1], dtype=torch.float64).index_add_(0, of_item, deltas)
        table = table[:, entities]  # e e: the total delta of a row's items if the column were their answer
        shuffles = torch.rand(rounds, len(entities), generator=draw).argsort(1)
        null += table.gather(1, shuffles.T).sum(0)
        observed += float(table.diagonal().sum())
        items += len(gold)
    if items == 0:
        return None
    # rounding may part two equal sums by a few ulp, so "at least as large" needs a hair of slack
    slack = 1e-9 * (1 + abs(observed))
    return (1 + int((null >= observed - slack).sum())) / (1 + rounds), float(null.std()) / items


def bootstrap(values: Tensor, facts: Sequence[str], *, seed: int = 0, rounds: int = 2000) -> tuple[float, float, float]:
    """Standard error and 95 % interval of a mean of values in [0, 1], drawing whole facts with all their items.

    Where all facts have the same mean the draws have no width; the bound is then the one that holds for any
    independent values in [0, 1]. Where they are all 0 (or 1) it is the exact binomial one over facts: 0 of 30 facts
    reads as 0 to 11.6 %, not as certainty.
    """
    means, num = _draws(values, facts, seed, rounds)
    if means is None:
        return 0.0, *_bounds(float(values.double().mean()), num)
    return float(means.std()), *_ends(means)


def open_bootstrap(
    values: Tensor, facts: Sequence[str], *, seed: int = 0, rounds: int = 2000
) -> tuple[float, float, float] | None:
    """The same for values without limits; None where all facts have the same mean, as nothing bounds it then."""
    means, _ = _draws(values, facts, seed, rounds)
    return None if means is None else (float(means.std()), *_ends(means))


def _draws(values: Tensor, facts: Sequence[str], seed: int, rounds: int) -> tuple[Tensor | None, int]:
    """Means over facts drawn with replacement, None where they cannot differ; and the number of facts."""
    names = {name: k for k, name in enumerate(sorted(set(facts)))}
    of_item = torch.tensor([names[name] for name in facts])
    sums = torch.zeros(len(names), dtype=torch.float64).index_add_(0, of_item, values.double())
    counts = torch.bincount(of_item, minlength=len(names)).double()
    own = sums / counts
    if float(own.max() - own.min()) <= _LEVEL:
        return None, len(names)
    draw = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(names), (rounds, len(names)), generator=draw)
    return sums[picks].sum(1) / counts[picks].sum(1), len(names)


def _ends(means: Tensor) -> tuple[float, float]:
    return float(torch.quantile(means, _TAIL)), float(torch.quantile(means, 1 - _TAIL))


def _bounds(mean: float, num: int) -> tuple[float, float]:
    """All p with num KL(mean || p) <= -log(tail): Chernoff's bound on `num` independent values in [0, 1]."""

    def unlikely(p: float) -> bool:
        parts = [(q, r) for q, r in ((mean, p), (1 - mean, 1 - p)) if q > 0]
        if any(r == 0 for _, r in parts):  # what never happens has happened: a mean of 1 - 1e-16 beside p = 1
            return True
        return num * sum(q * math.log(q / r) for q, r in parts) > -math.log(_TAIL)

    def edge(outside: float) -> float:
        inside = mean
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if unlikely(middle) else (middle, outside)
        return inside

    return edge(0.0), edge(1.0)


def _places(scores: Tensor, gold: Tensor) -> tuple[Tensor, Tensor]:
    """How many answers are above the right one, and how many level with it, itself among them."""
    lead = scores - scores.gather(1, gold[:, None])
    return (lead > _LEVEL).sum(1), (lead.abs() <= _LEVEL).sum(1)


def _deltas(scores: Tensor) -> Tensor:
    """Log P(c) - mean log P(all but c), for every candidate c as if it were the right one."""
    num = scores.shape[1]
    return (num * scores - scores.sum(1, keepdim=True)) / (num - 1)
