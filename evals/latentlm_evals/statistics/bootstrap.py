"""Intervals of a mean over clusters: percentile bootstrap, exact at 0 and 1."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from latentlm_evals.statistics.ranking import LEVEL

_TAIL = 0.025  # outside either end of an interval


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
    if float(own.max() - own.min()) <= LEVEL:
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
