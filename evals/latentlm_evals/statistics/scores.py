"""Accuracy, chance and skill of guesses, and the variance that is explained; on arrays and tensors of the CPU.

Letters: ``n`` inputs.
"""

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from latentlm_evals.statistics.arrays import Array


def accuracy(guess: ArrayLike, truth: ArrayLike) -> float:
    """Share that is right."""
    return float(np.mean(np.asarray(guess) == np.asarray(truth)))


def chance_rate(labels: ArrayLike) -> float:
    """Share of the largest class."""
    _, counts = np.unique(np.asarray(labels), return_counts=True)
    return float(counts.max() / counts.sum())


def skills(guess: ArrayLike, truth: ArrayLike) -> Array:
    """What each input adds to `skill`, its mean, ``[n]``; NaN where all labels are the same."""
    chance = chance_rate(truth)
    hits = (np.asarray(guess) == np.asarray(truth)).astype(float)
    return (hits - chance) / (1 - chance) if chance < 1 else np.full(len(hits), np.nan)


def skill(guess: ArrayLike, truth: ArrayLike) -> float:
    """``s = (accuracy - chance) / (1 - chance)``; chance = share of the largest class."""
    return float(skills(guess, truth).mean())


def r_squared(guess: Tensor, truth: Tensor) -> float:
    """``1 - squared error / variance``, pooled over columns."""
    spread = (truth - truth.mean(0)).square().sum()
    return float(1 - (guess - truth).square().sum() / spread) if spread > 0 else float("nan")
