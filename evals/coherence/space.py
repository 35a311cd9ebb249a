"""The coordinates in which probes are fitted: standardised principal directions of the training states.

A handful of huge dimensions would decide every covariance, and a few hundred sentences cannot fix hundreds of
dimensions. Letters: ``n`` states, ``d`` width, ``r`` components.
"""

from dataclasses import dataclass

import numpy as np

from .probes import Array, check_states


@dataclass(frozen=True)
class Space:
    """``z = V (h - mean) / scale`` and the way back.

    Attributes:
        mean, scale: of each dimension ``[d]``.
        basis: orthonormal rows ``[r d]``.
        explained: share of the standardised variance inside.
    """

    mean: Array
    scale: Array
    basis: Array
    explained: float

    @classmethod
    def fit(cls, states: Array, components: int) -> "Space":
        """Space of training states ``[n d]``."""
        check_states("states", states)
        mean, spread = states.mean(0), states.std(0)
        scale = np.where(spread > 1e-9 * max(1.0, float(np.abs(states).max())), spread, np.inf)  # dead: always zero
        values, vectors = np.linalg.eigh(((states - mean) / scale).T @ ((states - mean) / scale))
        kept = vectors[:, ::-1][:, :components].T
        total = max(float(values.sum()), 1e-12)
        return cls(mean, scale, kept, float(values[::-1][:components].sum()) / total)

    def __call__(self, states: Array) -> Array:
        """Coordinates ``[n r]`` of states ``[n d]``."""
        return ((states - self.mean) / self.scale) @ self.basis.T

    def back(self, change: Array) -> Array:
        """Change of the states that a change of coordinates ``[n r]`` means."""
        return (change @ self.basis) * np.where(np.isfinite(self.scale), self.scale, 0.0)

    def readout(self, weights: Array) -> Array:
        """Weights ``[c d]`` on the states of a readout ``[c r]`` of the coordinates."""
        return (weights @ self.basis) / self.scale
