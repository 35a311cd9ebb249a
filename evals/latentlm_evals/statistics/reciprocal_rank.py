"""Mean reciprocal ranks: does a state find its own partner among all of them?

Letters: ``n`` queries, ``m`` keys, ``d`` width.
"""

import numpy as np

from latentlm_evals.probes.context_probes import Array, check_states


def check_pairs(name: str, left: Array, right: Array, least: int = 3) -> None:
    """ValueError unless row i of one array can belong to row i of the other."""
    for side in (left, right):
        check_states(name, side)
    if left.shape != right.shape:
        raise ValueError(f"{name}: {left.shape} and {right.shape}: rows of both sides must be about the same entities")
    if len(left) < least:
        raise ValueError(f"{name}: {len(left)} pairs: give at least {least}")


def by_cosine(queries: Array, keys: Array, gold: Array | None = None) -> Array:
    """Reciprocal rank ``[n]`` of each query's own key (number `gold`, else its own) by cosine."""
    scores = unit(queries) @ unit(keys).T
    own = scores[np.arange(len(queries)), np.arange(len(queries)) if gold is None else gold][:, None]
    near = 1e-9  # rounding must not order equal keys
    return expected((scores > own + near).sum(1), (np.abs(scores - own) <= near).sum(1))


def expected(above: Array, level: Array) -> Array:
    """``mean of 1 / rank over rank = above + 1 .. above + level``: ties are broken by lot, so equal keys are at chance.

    Checked:   tests/evals/coherence/test_binding.py - random orders of the tied keys, equal keys.

    Args:
        above: keys that are nearer than the query's own, ``[n]``.
        level: keys that are as near, its own among them.
    """
    sums = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int((above + level).max()) + 1))])
    return (sums[above + level] - sums[above]) / level


def chance_mrr(num: int) -> float:
    """Mean reciprocal rank of a blind guess among `num`."""
    return float((1 / np.arange(1, num + 1)).mean())


def unit(rows: Array) -> Array:
    """Rows of length 1; zeros stay zero."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
