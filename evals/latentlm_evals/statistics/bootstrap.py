"""95 % intervals by drawing whole entities with all their rows: bootstrap of means, jackknife of what was fitted.

Letters: ``n`` rows, ``m`` entities, ``b`` draws.
"""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from latentlm.result import Estimate
from latentlm_evals.statistics.arrays import Array, Labels

TAIL = 0.025  # outside either end of an interval
ROUNDS = 1000
SAME = 1e-9  # means of entities that are closer than this are equal


def draws(entities: Labels, labels: Labels | None = None, seed: int = 0, rounds: int = ROUNDS) -> Array:
    """How often each row is drawn ``[b n]`` when as many entities as there are, with all their rows, are drawn.

    Checked:   tests/evals/coherence/test_cluster_bootstrap.py - whole entities, frequencies, coverage.

    Args:
        entities: what each row is about, ``[n]``.
        labels: of each row; where every entity has one label only, as many as there are are drawn of each label.
        seed: of the draws.
        rounds: b.
    """
    names, of_row = np.unique(entities, return_inverse=True)
    stratum = np.zeros(len(names), int)
    if labels is not None and len(np.unique(np.stack([of_row, labels]), axis=1).T) == len(names):
        stratum[of_row] = np.unique(labels, return_inverse=True)[1]
    return _entity_draws(stratum, seed, rounds)[:, of_row]


def _entity_draws(stratum: Labels, seed: int, rounds: int) -> Array:
    """How often each entity is drawn ``[b m]``, as many of each stratum as it has."""
    draw = np.random.default_rng(seed)
    counts = np.zeros((rounds, len(stratum)))
    for value in np.unique(stratum):
        mine = np.flatnonzero(stratum == value)
        counts[:, mine] = draw.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=rounds)
    return counts


def bounded_mean(
    values: ArrayLike,
    entities: Sequence[Hashable],
    *,
    least: float = 0.0,
    seed: int = 0,
    higher_is_better: bool | None = None,
) -> Estimate:
    """Mean of values in [least, 1], with its standard error and 95 % interval over entities.

    Where all entities have the same mean the draws have no width; the bound is then the one that holds for any
    independent values in that range. Where they are all at an end of it, it is the exact binomial one over entities: 0
    of 30 facts reads as 0 to 11.6 %, not as certainty.

    Args:
        values: one for each row, ``[n]``.
        entities: what each row is about; rows of one entity are drawn together.
        least: smallest value that there can be, e.g. 1 / c for a reciprocal rank among c candidates.
        seed: of the draws.
        higher_is_better: of the score.
    """
    mean, (means, number) = float(np.mean(np.asarray(values, float))), _means(values, entities, seed)
    if means is None:
        scaled = min(max((mean - least) / (1 - least), 0.0), 1.0)
        low, high = (least + (1 - least) * end for end in chernoff(scaled, number))
        return Estimate(mean, 0.0, low, high, higher_is_better)
    return Estimate(mean, float(means.std(ddof=1)), *_ends(means), higher_is_better)


def open_mean(
    values: ArrayLike, entities: Sequence[Hashable], *, seed: int = 0, higher_is_better: bool | None = None
) -> Estimate:
    """The same for values without limits; no interval where all entities have the same mean, as nothing bounds it."""
    mean, (means, _) = float(np.mean(np.asarray(values, float))), _means(values, entities, seed)
    if means is None:
        return Estimate(mean, higher_is_better=higher_is_better)
    return Estimate(mean, float(means.std(ddof=1)), *_ends(means), higher_is_better)


def ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    entities: Sequence[Hashable],
    *,
    seed: int = 0,
    higher_is_better: bool | None = None,
) -> Estimate:
    """``sum numerators / sum denominators`` with the interval over entities; none for a single entity.

    Checked:   tests/evals/answers/test_answers.py - against the mean over tokens, each counted once.

    Args:
        numerators: such as the nats of each row, ``[n]``.
        denominators: such as its tokens, ``[n]``; their sum is above 0.
        entities: what each row is about; rows of one entity are drawn together.
        seed: of the draws.
        higher_is_better: of the score.
    """
    numbers: dict[Hashable, int] = {name: k for k, name in enumerate(dict.fromkeys(entities))}
    of_row = np.array([numbers[name] for name in entities])
    above, below = (np.bincount(of_row, np.asarray(part, float)) for part in (numerators, denominators))
    value = float(above.sum() / below.sum())
    if len(numbers) < 2:
        return Estimate(value, higher_is_better=higher_is_better)
    drawn = _entity_draws(np.zeros(len(numbers), int), seed, 2 * ROUNDS)
    totals = drawn @ below
    means = (drawn @ above)[totals > 0] / totals[totals > 0]
    return Estimate(value, float(means.std(ddof=1)), *_ends(means), higher_is_better)


def _means(values: ArrayLike, entities: Sequence[Hashable], seed: int) -> tuple[Array | None, int]:
    """Means over entities drawn with replacement, None where they cannot differ; and the number of entities."""
    numbers: dict[Hashable, int] = {name: k for k, name in enumerate(sorted(set(entities), key=str))}
    of_row = np.array([numbers[name] for name in entities])
    sums = np.bincount(of_row, np.asarray(values, float))
    counts = np.bincount(of_row).astype(float)
    if np.ptp(sums / counts) <= SAME:
        return None, len(numbers)
    drawn = _entity_draws(np.zeros(len(numbers), int), seed, 2 * ROUNDS)
    return drawn @ sums / (drawn @ counts), len(numbers)


def _ends(drawn: Array) -> tuple[float, float]:
    low, high = np.quantile(drawn, (TAIL, 1 - TAIL))
    return float(low), float(high)


def chernoff(mean: float, number: int) -> tuple[float, float]:
    """All p with number KL(mean || p) <= -log(tail): Chernoff's bound on independent values in [0, 1]."""

    def excess(p: float) -> float:
        parts = [(q, r) for q, r in ((mean, p), (1 - mean, 1 - p)) if q > 0]
        if any(r == 0 for _, r in parts):  # what never happens has happened: a mean of 1 - 1e-16 beside p = 1
            return math.inf
        return number * sum(q * math.log(q / r) for q, r in parts) + math.log(TAIL)

    def edge(end: float) -> float:
        if excess(end) <= 0:
            return end
        inside = 1e-15 if end == 0 else 1 - 1e-15  # infinity has no slope
        if excess(inside) <= 0 or excess(mean) >= 0:
            return end
        root, _ = brentq(excess, mean, inside, xtol=1e-14, full_output=True)
        return float(root)

    return edge(0.0), edge(1.0)


def interval(name: str, drawn: Array) -> dict[str, float]:
    """``name_low`` and ``name_high``: the middle 95 % of the draws that have a value; NaN if fewer than half have."""
    known = drawn[np.isfinite(drawn)]
    low, high = _ends(known) if 2 * len(known) > len(drawn) else (math.nan, math.nan)
    return {f"{name}_low": low, f"{name}_high": high}


def mean_interval(name: str, values: Array, entities: Labels | None = None) -> dict[str, float]:
    """Interval of the mean of ``values [n]`` without limits."""
    counts = draws(np.arange(len(values)) if entities is None else entities)
    return interval(name, counts @ values / counts.sum(1))


def jackknife(name: str, without: Array, whole: float) -> dict[str, float]:
    """``s -+ 1.96 se``, se^2 = (m - 1) / m sum_i (s_i - mean s)^2, within 0..1.

    For scores that compare entities with each other: drawn twice, one would look like two that agree.

    Args:
        name: of the score.
        without: s_i, the score without entity i, ``[m]``.
        whole: s.
    """
    if len(without) < 3 or not np.isfinite([*without, whole]).all():
        return {f"{name}_low": math.nan, f"{name}_high": math.nan}
    error = float(np.sqrt((len(without) - 1) * without.var()))
    return {f"{name}_low": max(0.0, whole - 1.96 * error), f"{name}_high": min(1.0, whole + 1.96 * error)}
