"""How many units carry an answer, and do answers that belong together change together (FER)?

Letters: ``n`` inputs, ``u`` units, ``c`` outputs, ``k`` families.
"""

from collections.abc import Callable

import numpy as np

from latentlm_evals.probes.context_probes import caution
from latentlm_evals.statistics.arrays import Array, Booleans, check_states


def contributions(function: Callable[[Array], Array], states: Array) -> Array:
    """``C_i(x) = |f(x) - f_{-i}(x)|``: what setting unit i to its mean changes in the output ``[n c]``; ``[n u]``."""
    check_states("units", states)
    whole, mean = function(states), states.mean(0)
    found = np.empty(states.shape)
    for i in range(states.shape[1]):
        without = states.copy()
        without[:, i] = mean[i]
        found[:, i] = np.linalg.norm((whole - function(without)).reshape(len(states), -1), axis=1)
    return found


def linear_contributions(weights: Array, states: Array) -> Array:
    """`contributions` of a linear readout ``f(h) = W h``, ``W [c u]``, in one step."""
    check_states("units", states)
    return np.abs(states - states.mean(0)) * np.linalg.norm(np.atleast_2d(weights), axis=0)


def unit_measures(parts: Array) -> dict[str, float]:
    """Effective units per input, Gini and effective rank of the contributions ``[n u]``.

        effective units = mean_x (sum_i C_i)^2 / sum_i C_i^2         1 = one unit, u = all alike
        gini            = mean_x sum_i sum_j |C_i - C_j| / (2 u sum_i C_i)
        rank            = exp(entropy of the normalised singular values of C)

    Source:    Xu 2026 (metrics for fractured entangled representations, 2505.11581), from a summary.
    Checked:   tests/evals/coherence/test_unit_attribution.py - one unit, all units, permutation of units.
    """
    if (parts < 0).any() or not np.isfinite(parts).all():
        raise ValueError("units: contributions are norms: they cannot be negative, NaN or infinite")
    active = parts[parts.sum(1) > 0]
    if not len(active):
        nan = caution("dead", "no unit changes the readout for any input")
        return {"effective_units": nan, "gini": nan, "contribution_rank": nan}
    num = parts.shape[1]
    ordered = np.sort(active, axis=1)
    gini = (2 * np.arange(1, num + 1) - num - 1) @ ordered.T / (num * ordered.sum(1))
    size = np.linalg.svd(active, compute_uv=False)
    p = size[size > 0] / size.sum()
    return {
        "effective_units": float((active.sum(1) ** 2 / (active**2).sum(1)).mean()),
        "gini": float(gini.mean()),
        "contribution_rank": float(np.exp(-(p * np.log(p)).sum())),
    }


def flip_coherence(flips: Booleans, seed: int = 0, rounds: int = 200) -> dict[str, float]:
    """Do the answers about one entity flip together in all families when the weights get noise?

        mean over pairs a != b of I(flip_a; flip_b) / min(H(flip_a), H(flip_b))      0 independent, 1 together

    Null:      `flips_together_shuffled`, entities permuted inside each family: few samples have information by chance.

    Args:
        flips: true where the probe's answer changed, ``[k m]`` of k families and m (noise draw, entity) pairs.
        seed: of the permutations.
        rounds: permutations.
    """
    flips = np.asarray(flips, bool)
    if flips.ndim != 2 or len(flips) < 2:
        raise ValueError(f"flips: shape {flips.shape}: need [families draws] with two families at least")
    rate = float(flips.mean())
    mixed = flips[(flips.mean(1) > 0) & (flips.mean(1) < 1)]
    if len(mixed) < 2:
        nan = caution("no_flips", f"{rate:.0%} of the answers flip: use another size of noise")
        return {"flips_together": nan, "flips_together_shuffled": nan, "flip_rate": rate}
    draw = np.random.default_rng(seed)
    null = [_mean_information(draw.permuted(mixed, axis=1)) for _ in range(rounds)]
    return {
        "flips_together": _mean_information(mixed),
        "flips_together_shuffled": float(np.mean(null)),
        "flip_rate": rate,
    }


def _mean_information(flips: Booleans) -> float:
    pairs = [(a, b) for a in range(len(flips)) for b in range(a)]
    return float(np.mean([_information(flips[a], flips[b]) for a, b in pairs]))


def _information(a: Booleans, b: Booleans) -> float:
    joint = np.array([[np.mean((a == i) & (b == j)) for j in (0, 1)] for i in (0, 1)])
    return (_entropy(joint.sum(0)) + _entropy(joint.sum(1)) - _entropy(joint)) / min(
        _entropy(joint.sum(0)), _entropy(joint.sum(1))
    )


def _entropy(p: Array) -> float:
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())
