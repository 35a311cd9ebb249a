"""Detail AND invariance: does the concept ignore its context while the whole state still tells it?

Collapse gives high Inv and no Detail, a bag of tokens the reverse; only their harmonic mean asks for both.
Letters: ``n`` states, ``d`` width, ``c`` classes.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from .probes import Array, Family, Labels, caution, check_families, fit_probe, inverse_root, skill, within_covariance


def concept_subspace(families: Sequence[Family]) -> Array:
    """LDA directions ``[r d]``, r <= c - 1, of the training halves: ``P S_W P' = I``.

    S_W is taken around the class means of each family, so the constant of a family does not count as noise.
    """
    num_classes = check_families(families)
    states, labels = [f.train - f.train.mean(0) for f in families], [f.train_labels for f in families]
    root = inverse_root(within_covariance(states, labels))
    values = np.unique(labels[0])
    means = np.stack([np.concatenate([x[y == v] for x, y in zip(states, labels, strict=True)]).mean(0) for v in values])
    _, size, rows = np.linalg.svd((means - means.mean(0)) @ root, full_matrices=False)
    rank = int((size[: num_classes - 1] > 1e-9).sum())
    if rank == 0:
        raise ValueError("concept_subspace: class means do not differ: there is no concept here")
    return rows[:rank] @ root


def invariance(subspace: Array, states: Array, labels: Labels) -> float:
    """``Inv = tr(P S_between P') / tr(P S_total P')`` over rows of all (unseen) families together."""
    inside = (states - states.mean(0)) @ subspace.T
    total = float((inside**2).sum())
    if total <= 1e-12 * len(states):
        return caution("collapsed", "states do not vary inside the concept subspace: Inv is left out")
    between = sum((labels == v).sum() * (inside[labels == v].mean(0) ** 2).sum() for v in np.unique(labels))
    return float(between) / total


def leak(subspace: Array, train: Array, test: Array, nuisances: Mapping[str, tuple[Labels, Labels]]) -> float:
    """Mean skill of nuisance probes on ``P h``: 0 if the concept subspace does not tell the context."""
    return readable(train @ subspace.T, test @ subspace.T, nuisances)


def readable(train: Array, test: Array, nuisances: Mapping[str, tuple[Labels, Labels]], strength: float = 0.1) -> float:
    """Mean skill of probes for every nuisance; `nuisances` holds its labels of train and of test rows."""
    if not nuisances:
        raise ValueError("nuisances: none given: name at least one thing besides the concept")
    spread = train.std(0)
    kept = spread > 1e-9 * max(1.0, float(np.abs(train).max()))
    if not kept.any():
        return caution("collapsed", "all states are alike: no detail can be read")
    x, y = (
        (train[:, kept] - train[:, kept].mean(0)) / spread[kept],
        (test[:, kept] - train[:, kept].mean(0)) / spread[kept],
    )
    return float(np.mean([skill(fit_probe(x, old, strength), y, new) for old, new in nuisances.values()]))


def joint(inv: float, detail: float) -> float:
    """Harmonic mean of Inv and Detail, both clipped to [0, 1]."""
    a, b = np.clip(inv, 0, 1), np.clip(detail, 0, 1)
    return float(2 * a * b / (a + b)) if a + b > 0 else 0.0


def detail_and_invariance(
    subspace: Array,
    train: Array,
    test: Array,
    test_labels: Labels,
    nuisances: Mapping[str, tuple[Labels, Labels]],
    base_detail: float | None = None,
) -> dict[str, float]:
    """Inv, Leak, Detail and Joint.

    Source:    this project's; LDA subspace as usual.
    Checked:   tests/test_coherence_detail.py - ideal, collapsed, bag of tokens, leaking.

    Args:
        subspace: of `concept_subspace`, from other families and other entities.
        train: rows that the nuisance probes are trained on.
        test: rows of unseen families and entities.
        test_labels: their value of the concept.
        nuisances: labels of each nuisance for train and for test rows.
        base_detail: mean nuisance skill of the base model, which `detail` is divided by.
    """
    inv = invariance(subspace, test, test_labels)
    raw = readable(train, test, nuisances)
    if base_detail is not None and base_detail <= 0.05:
        raise ValueError(f"base_detail: {base_detail:.3f}: the base model shows no detail to compare with")
    detail = raw if base_detail is None else raw / base_detail
    return {"inv": inv, "leak": leak(subspace, train, test, nuisances), "detail": detail, "joint": joint(inv, detail)}
