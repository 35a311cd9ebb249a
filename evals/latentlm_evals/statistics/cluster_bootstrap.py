"""95 % intervals by drawing whole entities: bootstrap of what was computed for each, jackknife of what was fitted.

Letters: ``n`` rows, ``b`` draws.
"""

import numpy as np

from latentlm_evals.probes.context_probes import Array, Labels

ROUNDS = 1000


def draws(entities: Labels, labels: Labels | None = None, seed: int = 0, rounds: int = ROUNDS) -> Array:
    """How often each row is drawn ``[b n]`` when as many entities as there are, with all their rows, are drawn.

    Checked:   tests/evals/coherence/test_cluster_bootstrap.py - whole entities, frequencies, coverage.

    Args:
        entities: whom each row is about, ``[n]``.
        labels: of each row; where every entity has one label only, as many as there are are drawn of each label.
        seed: of the draws.
        rounds: b.
    """
    names, of_row = np.unique(entities, return_inverse=True)
    stratum = np.zeros(len(names), int)
    if labels is not None and len(np.unique(np.stack([of_row, labels]), axis=1).T) == len(names):
        stratum[of_row] = np.unique(labels, return_inverse=True)[1]
    draw = np.random.default_rng(seed)
    counts = np.zeros((rounds, len(names)))
    for value in np.unique(stratum):
        mine = np.flatnonzero(stratum == value)
        counts[:, mine] = draw.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=rounds)
    return counts[:, of_row]


def interval(name: str, drawn: Array) -> dict[str, float]:
    """``name_low`` and ``name_high``: the middle 95 % of the draws that have a value; NaN if fewer than half have."""
    known = drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, (0.025, 0.975)) if 2 * len(known) > len(drawn) else (np.nan, np.nan)
    return {f"{name}_low": float(low), f"{name}_high": float(high)}


def mean_interval(name: str, values: Array, entities: Labels | None = None) -> dict[str, float]:
    """Interval of the mean of ``values [n]``."""
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
        return {f"{name}_low": float("nan"), f"{name}_high": float("nan")}
    error = float(np.sqrt((len(without) - 1) * without.var()))
    return {f"{name}_low": max(0.0, whole - 1.96 * error), f"{name}_high": min(1.0, whole + 1.96 * error)}
