"""Does a transformation of the input act as one map on the states, and do the maps form a group?

A representation that g does not move predicts h(gx) perfectly by h(x). So EQ_gain compares with h(x), and h(x) itself
stands among the candidates of the retrieval. Letters: ``n`` pairs, ``d`` width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from sklearn.linear_model import RidgeCV

from latentlm_evals.probes.context_probes import caution
from latentlm_evals.statistics.arrays import Array, Labels, check_pairs, rounding
from latentlm_evals.statistics.bootstrap import draws, interval
from latentlm_evals.statistics.ranking import chance_mrr, expected_reciprocal_rank

STILL = 1e-3  # share of the spread of h(gx); less movement than this is invariance
PENALTIES = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)


@dataclass(frozen=True)
class Action:
    """The affine map rho_g: ``h(gx) = matrix h(x) + offset``."""

    matrix: Array
    offset: Array

    def __call__(self, states: Array) -> Array:
        """Apply to rows."""
        return states @ self.matrix.T + self.offset


def fit_action(states: Array, moved: Array, penalty: float | None = None) -> Action:
    """Ridge of h(gx) on h(x), shrunk towards the identity plus a shift; the penalty by leave-one-out if not given.

    Shrinking towards zero would call every high-dimensional g a collapse onto the mean: few pairs, many dimensions.
    """
    check_pairs("fit_action", states, moved)
    centre, goal = states.mean(0), (moved - states).mean(0)
    # penalties are shares of the mean square along a principal direction
    size = max(float(((states - centre) ** 2).sum()) / min(states.shape), 1e-12)
    ridge = RidgeCV([value * size for value in (PENALTIES if penalty is None else (penalty,))])
    change = ridge.fit(states - centre, moved - states - goal).coef_
    matrix = np.eye(states.shape[1]) + np.asarray(change)
    return Action(matrix, centre + goal - matrix @ centre)


def equivariance(action: Action, states: Array, moved: Array, entities: Labels | None = None) -> dict[str, float]:
    """How well rho_g, fitted elsewhere, predicts h(gx) for these x.

        EQ      = 1 - sum |h(gx) - rho_g h(x)|^2 / sum |h(gx) - mean h(gx)|^2
        EQ_gain = 1 - sum |h(gx) - rho_g h(x)|^2 / sum |h(gx) - h(x)|^2          0 if merely invariant
        H@1, MRR: rho_g h(x) -> h(gx) among all h(gx') and all h(x'), by distance
        moved   = sum |h(gx) - h(x)|^2 / sum |h(gx) - mean h(gx)|^2

    Interval:  of EQ_gain, bootstrap over `entities` (number of what each row is about ``[n]``; None: each row).
    Source:    retrieval as in SIE (2302.10283); EQ_gain and the untransformed candidates are this project's guards.
    Checked:   tests/evals/coherence/test_equivariance.py - rotation, invariant, collapsed, unrelated features.
    """
    check_pairs("equivariance", states, moved)
    miss = ((moved - action(states)) ** 2).sum(1)
    steps = ((moved - states) ** 2).sum(1)
    error, shift = float(miss.sum()), float(steps.sum())
    spread = float(((moved - moved.mean(0)) ** 2).sum())
    if spread <= len(moved) * float((rounding(moved) ** 2).sum()):
        nan = caution("collapsed", "h(gx) is the same for all x: nothing that g could act on")
        return dict.fromkeys(("eq", "eq_gain", "eq_gain_low", "eq_gain_high", "h@1", "mrr", "moved", "mrr_chance"), nan)
    still = shift < STILL * spread
    if still:
        caution("invariant", f"g moves the states by {shift / spread:.1e} of their spread: EQ_gain is left out")
    above, level = _places(action(states), np.concatenate([moved, states]))
    counts = draws(np.arange(len(states)) if entities is None else entities)
    total = counts @ steps
    gains = np.full(len(counts), np.nan) if still else 1 - counts @ miss / np.maximum(total, 1e-12 * shift)
    return {
        "eq": 1 - error / spread,
        "eq_gain": float("nan") if still else 1 - error / shift,
        "h@1": float(((above == 0) & (level == 1)).mean()),
        "mrr": float(expected_reciprocal_rank(above, level).mean()),
        "moved": shift / spread,
        "mrr_chance": chance_mrr(2 * len(states)),
    } | interval("eq_gain", gains)


def compose(first: Action, second: Action) -> Action:
    """``second(first(h))``."""
    return Action(second.matrix @ first.matrix, second.matrix @ first.offset + second.offset)


def law(product: Sequence[Action], single: Action | None, frame: "Frame") -> dict[str, float]:
    """Does doing one after the other give the one map it should?

        P = rho_n .. rho_1, S = rho_{n..1} or the identity if `single` is None, both in a frame of principal directions
        error = |P - S|_F / |S|_F
        gain  = 1 - |P - S|_F / max_i |rho_i - I|_F        0 if the maps do nothing, or if the first is never undone

    A law of maps that do nothing holds for free: `error` is 0 there, `gain` is left out.

    Args:
        product: the maps in the order in which they act.
        single: the map that they should equal.
        frame: where the matrices are compared, one for all.
    """
    eye = np.eye(len(frame.basis) + 1)
    whole = frame.matrix(reduce(compose, product))
    aim = eye if single is None else frame.matrix(single)
    error = float(np.linalg.norm(whole - aim))
    size = max(float(np.linalg.norm(frame.matrix(action) - eye)) for action in product)
    idle = size < STILL * np.linalg.norm(eye)
    if idle:
        caution("idle", "the fitted maps are the identity: their group law holds for free, its gain is left out")
    return {"error": error / float(np.linalg.norm(aim)), "gain": float("nan") if idle else 1 - error / size}


@dataclass(frozen=True)
class Frame:
    """Principal directions ``[r d]`` around a centre; coordinates have unit mean square."""

    basis: Array
    centre: Array
    scale: float

    @classmethod
    def of(cls, states: Array, rank: int) -> "Frame":
        """The `rank` directions of most variance."""
        centred = states - states.mean(0)
        basis = np.linalg.svd(centred, full_matrices=False)[2][:rank]
        return cls(basis, states.mean(0), float(np.sqrt(((centred @ basis.T) ** 2).mean())) or 1.0)

    def matrix(self, action: Action) -> Array:
        """The action on ``(coordinates, 1)``: a translation is a map too."""
        corner = np.zeros((len(self.basis) + 1, len(self.basis) + 1))
        corner[:-1, :-1] = self.basis @ action.matrix @ self.basis.T
        corner[:-1, -1] = self.basis @ (action(self.centre[None])[0] - self.centre) / self.scale
        corner[-1, -1] = 1
        return corner


def _places(queries: Array, keys: Array) -> tuple[Labels, Labels]:
    """How many keys are nearer than a query's own, and how many as near, its own among them."""
    distance = ((queries[:, None] - keys[None]) ** 2).sum(-1)
    own = distance[np.arange(len(queries)), np.arange(len(queries))][:, None]
    near = 1e-9 * (1 + own)
    return (distance < own - near).sum(1), (np.abs(distance - own) <= near).sum(1)
