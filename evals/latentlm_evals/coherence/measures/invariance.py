"""Detail AND invariance: does the concept ignore its context while the whole state still tells it?

Collapse gives high Inv and no Detail, a bag of tokens the reverse; only their harmonic mean asks for both.
Letters: ``n`` states, ``d`` width, ``c`` classes.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from latentlm_evals.probes.context_probes import (
    Family,
    caution,
    check_families,
    fit_probe,
    inverse_root,
    probe_skills,
    within_covariance,
)
from latentlm_evals.statistics.arrays import Array, Labels, alive, rounding
from latentlm_evals.statistics.bootstrap import jackknife


def concept_subspace(families: Sequence[Family]) -> Array:
    """LDA directions ``[r d]``, r <= c - 1, of the training halves: ``P S_W P' = I``.

    S_W is taken around the class means of each family, so the constant of a family does not count as noise. No rows,
    and a warning, where class means do not differ.
    """
    num_classes = check_families(families)
    states, labels = [f.train - f.train.mean(0) for f in families], [f.train_labels for f in families]
    root = inverse_root(within_covariance(states, labels))
    values = np.unique(labels[0])
    means = np.stack([np.concatenate([x[y == v] for x, y in zip(states, labels, strict=True)]).mean(0) for v in values])
    _, size, rows = np.linalg.svd((means - means.mean(0)) @ root, full_matrices=False)
    noise = max(float(np.linalg.norm(rounding(f.train)[:, None] * root, 2)) for f in families)  # whitened too
    rank = int((size[: num_classes - 1] > noise).sum())
    if rank == 0:
        caution("collapsed", "class means do not differ: there is no concept here")
    return rows[:rank] @ root


def invariance(subspace: Array, states: Array, labels: Labels) -> float:
    """``Inv = tr(P S_between P') / tr(P S_total P')`` over rows of all (unseen) families together."""
    inside = (states - states.mean(0)) @ subspace.T
    if float((inside**2).sum()) <= len(states) * float(((subspace * rounding(states)) ** 2).sum()):
        return caution("collapsed", "states do not vary inside the concept subspace: Inv is left out")
    return float(_drawn_invariance(inside, labels, np.ones((1, len(states))))[0])


def _drawn_invariance(inside: Array, labels: Labels, counts: Array) -> Array:
    """Inv ``[b]`` of rows ``[n r]`` each drawn so often ``[b n]``: sums of squares around the drawn means."""
    number = np.maximum(counts.sum(1), 1e-12)
    mean = counts @ inside / number[:, None]
    total = counts @ (inside**2).sum(1) - number * (mean**2).sum(1)
    between = np.zeros(len(counts))
    for value in np.unique(labels):
        own = counts * (labels == value)
        many = np.maximum(own.sum(1), 1e-12)
        between += many * (((own @ inside) / many[:, None] - mean) ** 2).sum(1)
    return np.divide(between, total, out=np.full(len(counts), np.nan), where=total > 0)


def leak(subspace: Array, train: Array, test: Array, nuisances: Mapping[str, tuple[Labels, Labels]]) -> float:
    """Mean skill of nuisance probes on ``P h``: 0 if the concept subspace does not tell the context."""
    return readable(train @ subspace.T, test @ subspace.T, nuisances)


def readable(train: Array, test: Array, nuisances: Mapping[str, tuple[Labels, Labels]], strength: float = 0.1) -> float:
    """Mean skill of probes for every nuisance; `nuisances` holds its labels of train and of test rows."""
    return float(_readable_rows(train, test, nuisances, strength).mean())


def _readable_rows(
    train: Array, test: Array, nuisances: Mapping[str, tuple[Labels, Labels]], strength: float = 0.1
) -> Array:
    """What each test row adds to `readable`, its mean, ``[n]``."""
    if not nuisances:
        raise ValueError("nuisances: none given: name at least one thing besides the concept")
    kept = alive(train)
    if not kept.any():
        return np.full(len(test), caution("collapsed", "all states are alike: no detail can be read"))
    centre, spread = train[:, kept].mean(0), train[:, kept].std(0)
    x, y = (train[:, kept] - centre) / spread, (test[:, kept] - centre) / spread
    return np.mean([probe_skills(fit_probe(x, old, strength), y, new) for old, new in nuisances.values()], axis=0)


def joint(inv: float, detail: float) -> float:
    """Harmonic mean of Inv and Detail, both clipped to [0, 1]; NaN if one of them has no value."""
    if np.isnan(inv) or np.isnan(detail):
        return float("nan")
    a, b = np.clip(inv, 0, 1), np.clip(detail, 0, 1)
    return float(2 * a * b / (a + b)) if a + b > 0 else 0.0


def detail_and_invariance(
    subspace: Array,
    train: Array,
    test: Array,
    test_labels: Labels,
    nuisances: Mapping[str, tuple[Labels, Labels]],
    base_detail: float | None = None,
    entities: Labels | None = None,
) -> dict[str, float]:
    """Inv, Leak, Detail and Joint.

    Interval:  of Joint, jackknife over the test rows' entities; subspace and probes stay.
    Source:    this project's; LDA subspace as usual.
    Checked:   tests/evals/coherence/test_invariance.py - ideal, collapsed, bag of tokens, leaking.

    Args:
        subspace: of `concept_subspace`, from other families and other entities.
        train: rows that the nuisance probes are trained on.
        test: rows of unseen families and entities.
        test_labels: their value of the concept.
        nuisances: labels of each nuisance for train and for test rows.
        base_detail: mean nuisance skill of the base model, which `detail` is divided by.
        entities: number of what each test row is about; None: no interval.
    """
    inv = invariance(subspace, test, test_labels)
    if base_detail is not None and base_detail <= 0.05:
        raise ValueError(f"base_detail: {base_detail:.3f}: the base model shows no detail to compare with")
    rows = _readable_rows(train, test, nuisances) / (1.0 if base_detail is None else base_detail)
    detail = float(rows.mean())
    found = {"inv": inv, "leak": leak(subspace, train, test, nuisances), "detail": detail, "joint": joint(inv, detail)}
    if entities is None:
        return found
    counts = (np.unique(entities)[:, None] != entities).astype(float)
    invs = _drawn_invariance((test - test.mean(0)) @ subspace.T, test_labels, counts)
    details = counts @ rows / np.maximum(counts.sum(1), 1e-12)
    without = [joint(a, b) for a, b in zip(invs, details, strict=True)]
    return found | jackknife("joint", np.array(without), found["joint"])
