"""Is the readout what the model uses? Interchange of the probe's subspace (RAVEL form) and amnesic erasure (LEACE).

Letters: ``n`` states, ``d`` width, ``r`` rank, ``c`` classes.
"""

from dataclasses import dataclass

import numpy as np

from latentlm_evals.statistics.arrays import Array, Booleans, Labels, check_states


def row_space(directions: Array) -> Array:
    """Orthonormal rows ``[r d]`` of the space that probe weights or class means span."""
    _, size, rows = np.linalg.svd(np.atleast_2d(directions), full_matrices=False)
    if size[0] <= 0:
        raise ValueError("subspace: all directions are zero: the probe found nothing")
    return rows[size > size[0] * 1e-6]


def interchange(base: Array, source: Array, subspace: Array) -> Array:
    """``h_base + Q'Q (h_source - h_base)``: the base state with the source's part in the subspace ``Q [r d]``."""
    return base + (source - base) @ subspace.T @ subspace


def disentangle(cause: Booleans, isolate: Booleans) -> dict[str, float]:
    """RAVEL's scores from hits of single interchanges.

        Cause   = share where the target attribute becomes the source's
        Isolate = share where another attribute stays the base's
        Disentangle = (Cause + Isolate) / 2

    Source:    2402.17700; the subspace is the probe's own instead of one trained for the purpose.
    """
    for name, hits in (("cause", cause), ("isolate", isolate)):
        if not len(hits):
            raise ValueError(f"{name}: no interchanges: the model answers none of the prompts right without one")
    parts = {"cause": float(np.mean(cause)), "isolate": float(np.mean(isolate))}
    return parts | {"disentangle": (parts["cause"] + parts["isolate"]) / 2}


@dataclass(frozen=True)
class Eraser:
    """``r(x) = x - left right (x - mean)``."""

    left: Array
    right: Array
    mean: Array

    def __call__(self, states: Array) -> Array:
        """Erase from rows."""
        return states - (states - self.mean) @ self.right.T @ self.left.T

    @property
    def rank(self) -> int:
        """Dimensions that are taken away."""
        return self.left.shape[1]


def leace(states: Array, labels: Labels) -> Eraser:
    """The least change after which no linear probe finds the labels.

        r(x) = x - W^+ P W (x - mu),  W = S_xx^(-1/2),  P = projection on the columns of W S_xz,  z = one-hot labels

    Source:    Belrose et al. 2023, arXiv:2306.03819, theorem 4.3. Differs: none.
    Checked:   tests/evals/coherence/test_causal.py - cross-covariance and probe skill vanish, least change beats
               projection.
    """
    check_states("leace", states)
    values = np.unique(labels)
    if len(values) < 2:
        raise ValueError(f"leace: all {len(labels)} states have one label: nothing to erase")
    mean = states.mean(0)
    centred = states - mean
    one_hot = (labels[:, None] == values).astype(float)
    cross = centred.T @ (one_hot - one_hot.mean(0)) / len(states)
    size, vectors = np.linalg.eigh(centred.T @ centred / len(states))
    keep = size > size.max() * 1e-8
    root = np.sqrt(size[keep])
    white = (vectors[:, keep] / root).T @ cross
    u, strength, _ = np.linalg.svd(white, full_matrices=False)
    u = u[:, strength > max(strength[0], 1e-12) * 1e-6][:, : len(values) - 1]
    return Eraser(left=(vectors[:, keep] * root) @ u, right=u.T @ (vectors[:, keep] / root).T, mean=mean)


def random_eraser(states: Array, rank: int, seed: int = 0) -> Eraser:
    """The control: a random `rank`-dimensional subspace of the whitened states is erased in the same way."""
    centred = states - states.mean(0)
    size, vectors = np.linalg.eigh(centred.T @ centred / len(states))
    keep = size > size.max() * 1e-8
    if rank > keep.sum():
        raise ValueError(f"random_eraser: rank {rank}, but the states only span {keep.sum()} dimensions")
    root = np.sqrt(size[keep])
    u = np.linalg.qr(np.random.default_rng(seed).standard_normal((int(keep.sum()), rank)))[0]
    return Eraser((vectors[:, keep] * root) @ u, u.T @ (vectors[:, keep] / root).T, states.mean(0))


def amnesic_effect(before: Array, erased: Array, random: Array) -> dict[str, float]:
    """Loss that erasing the concept costs, beyond what erasing a random subspace of its rank costs.

        amnesic = mean(loss_erased - loss) - mean(loss_random - loss)

    Null:      `random_cost`, the second mean.
    """
    cost = float(np.mean(random - before))
    return {"amnesic": float(np.mean(erased - before)) - cost, "random_cost": cost}
