"""Types of arrays of hidden states, and when two states are the same up to rounding.

Letters: ``n`` states, ``d`` width.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Labels = NDArray[np.integer]
Booleans = NDArray[np.bool_]

ROUNDING = 128 * float(np.finfo(np.float32).eps)  # share of the size of float32 states below which they do not differ


def check_states(name: str, states: Array) -> None:
    """ValueError unless the states are a finite table of rows."""
    if states.ndim != 2 or not states.size:
        raise ValueError(f"{name}: states of shape {states.shape}: need rows of numbers [n d]")
    if not np.isfinite(states).all():
        bad = int((~np.isfinite(states).all(1)).sum())
        raise ValueError(f"{name}: {bad} of {len(states)} states hold NaN or infinity: the weights have diverged")


def check_pairs(name: str, left: Array, right: Array, least: int = 3) -> None:
    """ValueError unless row i of one array can belong to row i of the other."""
    for side in (left, right):
        check_states(name, side)
    if left.shape != right.shape:
        raise ValueError(f"{name}: {left.shape} and {right.shape}: rows of both sides must be about the same entities")
    if len(left) < least:
        raise ValueError(f"{name}: {len(left)} pairs: give at least {least}")


def rounding(states: Array) -> Array:
    """What float32 may add to each dimension ``[d]``: ``ROUNDING max(size_i, median_j size_j)``, size = largest value.

    A dimension near zero is mostly a difference of larger numbers and has their rounding.
    """
    size = np.abs(states).max(0)
    return ROUNDING * np.maximum(size, np.median(size))


def alive(states: Array) -> Booleans:
    """Dimensions ``[d]`` whose standard deviation is larger than their `rounding`.

    Checked:   tests/evals/coherence/test_collapse.py - equal states with rounding, small states, one live dimension.
    """
    return states.std(0) > rounding(states) if states.size else np.zeros(states.shape[1], bool)


def is_flat(*tables: Array) -> bool:
    """Whether one of the tables holds a single state over and over."""
    return any(not alive(states).any() for states in tables)


def unit(rows: Array) -> Array:
    """Rows of length 1; zeros stay zero."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
