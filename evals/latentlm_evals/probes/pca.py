"""The coordinates in which probes are fitted: standardised principal directions of the training states.

A handful of huge dimensions would decide every covariance, and a few hundred sentences cannot fix hundreds of
dimensions. Letters: ``n`` states, ``d`` width, ``r`` components.
"""

from dataclasses import dataclass

import numpy as np

from latentlm_evals.statistics.arrays import ROUNDING, Array, alive, check_states


@dataclass(frozen=True)
class Space:
    """``z = V (h - mean) / scale`` and the way back.

    Attributes:
        mean, scale: of each dimension ``[d]``.
        basis: orthonormal rows ``[r d]``; zeros for directions without variance.
        explained: share of the standardised variance inside.
    """

    mean: Array
    scale: Array
    basis: Array
    explained: float

    @property
    def is_collapsed(self) -> bool:
        """Whether all states that it was fitted on are one state."""
        return not np.isfinite(self.scale).any()

    @classmethod
    def fit(cls, states: Array, components: int) -> "Space":
        """Space of training states ``[n d]``."""
        check_states("states", states)
        mean, spread = states.mean(0), states.std(0)
        scale = np.where(alive(states), spread, np.inf)  # dead dimensions: always zero
        values, vectors = np.linalg.eigh(((states - mean) / scale).T @ ((states - mean) / scale))
        values, basis = values[::-1], vectors[:, ::-1].T[:components].copy()
        if not np.isfinite(scale).any():
            return cls(mean, scale, 0 * basis, float("nan"))
        # directions in which there is rounding alone are dead too
        noise = ROUNDING * float(np.median((np.abs(states).max(0) / scale)[np.isfinite(scale)]))
        basis[values[: len(basis)] <= len(states) * noise**2] = 0
        return cls(mean, scale, basis, float(values[:components].sum()) / float(values.sum()))

    def __call__(self, states: Array) -> Array:
        """Coordinates ``[n r]`` of states ``[n d]``."""
        return ((states - self.mean) / self.scale) @ self.basis.T

    def back(self, change: Array) -> Array:
        """Change of the states that a change of coordinates ``[n r]`` means."""
        return (change @ self.basis) * np.where(np.isfinite(self.scale), self.scale, 0.0)

    def readout(self, weights: Array) -> Array:
        """Weights ``[c d]`` on the states of a readout ``[c r]`` of the coordinates."""
        return (weights @ self.basis) / self.scale
