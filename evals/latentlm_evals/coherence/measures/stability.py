"""Is a concept read out the same way in every kind of context? CRS, LOFO, probe cosine and Fracture.

Within-family accuracy cannot tell: a concept with a direction of its own in every context scores as well as a shared
one. Letters: ``k`` families, ``c`` classes, ``d`` width.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from latentlm_evals.probes.context_probes import (
    CoherenceWarning,
    Family,
    caution,
    check_families,
    fit_probe,
    inverse_root,
    probe_skill,
    probe_skills,
    within_covariance,
)
from latentlm_evals.statistics.arrays import Array, rounding
from latentlm_evals.statistics.bootstrap import draws, interval, jackknife

READABLE = 0.1  # below this within-family skill there is no readout whose stability could be asked


@dataclass(frozen=True)
class Stability:
    """Scores of one concept at one depth, and the transfer matrix behind them.

    Attributes:
        within: mean S_aa, the ordinary probe score.
        crs: max(0, mean over a != b of S_ab) / mean S_aa.
        crs_min: min over a != b of S_ab / mean S_aa.
        crs_raw: `crs` with the bias as trained.
        lofo: mean over b of S_(all but b)->b / S_bb.
        mcs: mean over a != b of the Mahalanobis cosine of probes a and b on family b.
        consolidation: share of the spectrum in the rank that one shared readout would need.
        num_readouts: N_eff, effective number of readouts; 1 = one for all families, k = one for each.
        fracture: (N_eff - 1) / (k - 1).
        transfer: S_ab ``[k k]``, trained on the row, tested on the column.
        intervals: ``within_low``, ``within_high``, and the same of `crs` and `fracture`, where families name entities.
    """

    within: float
    crs: float
    crs_min: float
    crs_raw: float
    lofo: float
    mcs: float
    consolidation: float
    num_readouts: float
    fracture: float
    transfer: Array
    intervals: Mapping[str, float] = field(default_factory=dict)


def stability(families: Sequence[Family], strength: float = 0.1) -> Stability:
    """All readout-stability scores.

        S_ab     = skill on F_b of a logistic probe trained on F_a, its bias refitted on the unlabelled mean of F_b
        MCS_ab   = tr(W_a S_b W_b') / sqrt(tr(W_a S_b W_a') tr(W_b S_b W_b'))     S_b = covariance of F_b

    Interval:  within and CRS: bootstrap over test entities, probes stay; Fracture: jackknife over training entities.
    Source:    within-context scores and transfer as in 2310.06824; MCS 2602.20273, its trace for several classes is
               ours; CRS, LOFO and Fracture are this project's.
    Checked:   tests/evals/coherence/test_stability.py - the known-answer table: one, partly shared and own directions.

    Args:
        families: the same concept in at least two kinds of context.
        strength: scikit-learn's C of the probes.
    """
    check_families(families)
    matrix, raw, weights, rows = _transfer(families, strength)
    within = float(np.diag(matrix).mean())
    readable = within >= READABLE
    if not readable:
        problem = f"within-family skill {within:.2f} < {READABLE}: no readout whose stability could be asked"
        caution("unreadable", f"{problem}; CRS, LOFO and MCS are left out")
    others = matrix[~np.eye(len(families), dtype=bool)]
    raw_others = raw[~np.eye(len(families), dtype=bool)]
    share, count, broken = fracture(families)
    nan = float("nan")
    return Stability(
        within=within,
        crs=max(0.0, float(others.mean())) / within if readable else nan,
        crs_min=float(others.min()) / within if readable else nan,
        crs_raw=max(0.0, float(raw_others.mean())) / within if readable else nan,
        lofo=_leave_one_out(families, np.diag(matrix), strength) if readable else nan,
        mcs=probe_cosine(weights, [family.test for family in families]) if readable else nan,
        consolidation=share,
        num_readouts=count,
        fracture=broken,
        transfer=matrix,
        intervals=_intervals(families, rows, readable) | _fracture_interval(families, broken),
    )


def _intervals(families: Sequence[Family], rows: dict[tuple[int, int], Array], readable: bool) -> dict[str, float]:
    """Of `within` and `crs`: an entity that is drawn brings its states of all families along."""
    entities = [family.test_entities for family in families if family.test_entities is not None]
    if len(entities) < len(families):
        return {}
    counts = draws(np.concatenate(entities), np.concatenate([family.test_labels for family in families]))
    parts = np.split(counts, np.cumsum([len(family.test) for family in families])[:-1], axis=1)
    drawn = {(a, b): parts[b] @ values / np.maximum(parts[b].sum(1), 1e-12) for (a, b), values in rows.items()}
    own = np.mean([drawn[a, b] for a, b in drawn if a == b], axis=0)
    others = np.mean([drawn[a, b] for a, b in drawn if a != b], axis=0)
    ratio = np.divide(np.maximum(others, 0), own, out=np.full(len(own), np.nan), where=(own > 0) & readable)
    return interval("within", own) | interval("crs", ratio)


def _fracture_interval(families: Sequence[Family], whole: float) -> dict[str, float]:
    entities = [family.train_entities for family in families if family.train_entities is not None]
    if len(entities) < len(families):
        return {}
    if np.isnan(whole):
        return jackknife("fracture", np.empty(0), whole)

    def without(entity: int) -> float:
        kept = [things != entity for things in entities]
        if any(set(f.train_labels[rest]) != set(f.train_labels) for f, rest in zip(families, kept, strict=True)):
            return float("nan")  # the only one of its class
        return fracture(
            [
                Family(f.train[rest], f.train_labels[rest], f.test, f.test_labels)
                for f, rest in zip(families, kept, strict=True)
            ]
        )[2]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoherenceWarning)
        everybody = np.unique(np.concatenate(entities))
        return jackknife("fracture", np.array([without(int(entity)) for entity in everybody]), whole)


def _transfer(
    families: Sequence[Family], strength: float
) -> tuple[Array, Array, list[Array], dict[tuple[int, int], Array]]:
    num = len(families)
    matrix, raw, weights = np.empty((num, num)), np.empty((num, num)), []
    rows = {}
    for a, source in enumerate(families):
        probe = fit_probe(source.train, source.train_labels, strength)
        weights.append(probe.coef_)
        for b, target in enumerate(families):
            shift = source.train.mean(0) - target.train.mean(0)
            rows[a, b] = probe_skills(probe, target.test + shift, target.test_labels)
            matrix[a, b] = rows[a, b].mean()
            raw[a, b] = probe_skill(probe, target.test, target.test_labels)
    return matrix, raw, weights, rows


def _leave_one_out(families: Sequence[Family], within: Array, strength: float) -> float:
    """Mean of S_(all but b)->b / S_bb, over the families that can be read from within."""
    ratios = []
    for b, target in enumerate(families):
        if within[b] < READABLE:
            continue
        # every family around its own mean, as in the transfer with a refitted bias
        states = [family.train - family.train.mean(0) for i, family in enumerate(families) if i != b]
        labels = [family.train_labels for i, family in enumerate(families) if i != b]
        probe = fit_probe(np.concatenate(states), np.concatenate(labels), strength)
        ratios.append(probe_skill(probe, target.test - target.train.mean(0), target.test_labels) / within[b])
    return float(np.mean(ratios))


def probe_cosine(weights: Sequence[Array], states: Sequence[Array]) -> float:
    """Mean Mahalanobis cosine of probes ``[c d]`` of different families, by the covariance of the second one."""
    covariances = [np.cov(x, rowvar=False) for x in states]
    cosines = []
    for b, sigma in enumerate(covariances):
        norm_b = np.trace(weights[b] @ sigma @ weights[b].T)
        for a in range(len(weights)):
            if a != b:
                norm_a = np.trace(weights[a] @ sigma @ weights[a].T)
                product = np.trace(weights[a] @ sigma @ weights[b].T)
                # a probe blind to everything that varies in F_b shares nothing with F_b's own
                cosines.append(product / np.sqrt(norm_a * norm_b) if norm_a * norm_b > 0 else 0.0)
    return float(np.mean(cosines))


def fracture(families: Sequence[Family]) -> tuple[float, float, float]:
    """Consolidation C, effective number of readouts N_eff, and Fracture.

        D_a = (class means of F_a, centred) S_W^(-1/2), Q_a = orthonormal rows spanning D_a's r = c - 1 directions
        sigma = singular values of [Q_1; ...; Q_k], q = sigma^2 / sum(sigma^2)
        C = sum of the r largest q;  N_eff = exp(-sum q ln q) / r;  Fracture = (N_eff - 1) / (k - 1)

    For two classes Q_a is the unit vector ``S_W^(-1/2) (mu_a1 - mu_a0)``. For more, sigma^2 - 1 of two families are
    the cosines of the principal angles between their concept subspaces: it tells whether the families use one
    subspace, not whether a class has one place in it (CRS tells that).
    """
    num_classes = check_families(families)
    states, labels = [f.train for f in families], [f.train_labels for f in families]
    root = inverse_root(within_covariance(states, labels))
    rank = min(num_classes - 1, states[0].shape[1])
    frames = []
    for x, y in zip(states, labels, strict=True):
        means = np.stack([x[y == value].mean(0) for value in np.unique(y)]) @ root
        _, size, rows = np.linalg.svd(means - means.mean(0), full_matrices=False)
        if size[rank - 1] <= float(np.linalg.norm(rounding(x)[:, None] * root, 2)):
            nan = caution("collapsed", "class means do not differ in a family: there is no concept to be fractured")
            return nan, nan, nan
        frames.append(rows[:rank])
    sigma = np.linalg.svd(np.concatenate(frames), compute_uv=False)
    q = sigma**2 / (sigma**2).sum()
    count = float(np.exp(-(q[q > 0] * np.log(q[q > 0])).sum())) / rank
    return float(q[:rank].sum()), count, (count - 1) / (len(families) - 1)
