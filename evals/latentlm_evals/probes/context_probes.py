"""Linear probes on arrays of states, and the checks every measure makes before it computes.

Letters: ``n`` states, ``d`` width, ``k`` context families, ``c`` classes.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.linear_model import LogisticRegression

from latentlm_evals.statistics.arrays import Array, Labels, check_states
from latentlm_evals.statistics.scores import skills


class CoherenceWarning(UserWarning):
    """A score that has no meaning here, or less than it seems; kept in the result."""


def caution(name: str, problem: str) -> float:
    """Warn by name, and give the value of a score that does not exist."""
    warnings.warn(f"{name}: {problem}", CoherenceWarning, stacklevel=3)
    return float("nan")


@dataclass(frozen=True)
class Family:
    """States of a concept in one kind of context; no entity is in both halves.

    Attributes:
        train, test: states ``[n d]``.
        train_labels, test_labels: value of the concept, ``[n]``.
        train_entities, test_entities: number of the thing each state is about, in all families alike, ``[n]``; None: no
            intervals.
    """

    train: Array
    train_labels: Labels
    test: Array
    test_labels: Labels
    train_entities: Labels | None = None
    test_entities: Labels | None = None

    def __post_init__(self) -> None:
        for name, states, labels in (
            ("train", self.train, self.train_labels),
            ("test", self.test, self.test_labels),
        ):
            check_states(name, states)
            if len(states) != len(labels):
                raise ValueError(f"{name}: {len(states)} states but {len(labels)} labels")
            if len(np.unique(labels)) < 2:
                raise ValueError(f"{name}: all {len(labels)} states have one label: a probe needs two classes")

    def relabelled(self, train_labels: Labels, test_labels: Labels) -> "Family":
        """The same states with other labels."""
        return replace(self, train_labels=train_labels, test_labels=test_labels)


def check_families(families: Sequence[Family]) -> int:
    """Number of classes; ValueError unless the families can be compared with each other."""
    if len(families) < 2:
        raise ValueError(f"families: {len(families)} given: two at least, or there is nothing to compare")
    widths = {family.train.shape[1] for family in families}
    if len(widths) > 1:
        raise ValueError(f"families: states are {sorted(widths)} wide: take them all from one depth of one model")
    classes = {tuple(np.unique(labels)) for family in families for labels in (family.train_labels, family.test_labels)}
    if len(classes) > 1:
        raise ValueError("families: not every family has every class in both halves: give each the same classes")
    rows, width = min(len(family.train) for family in families), widths.pop()
    if rows < width:
        caution("few_samples", f"{rows} training states of {width} dimensions: probes can fit anything")
    return len(classes.pop())


def fit_probe(states: Array, labels: Labels, strength: float = 0.1) -> LogisticRegression:
    """Logistic probe; `strength` is scikit-learn's C, the inverse of the penalty."""
    check_states("probe", states)
    if len(np.unique(labels)) < 2:
        raise ValueError(f"probe: all {len(labels)} states have one label: a probe needs two classes")
    return LogisticRegression(C=strength, max_iter=2000).fit(states, labels)


def probe_skills(probe: LogisticRegression, states: Array, labels: Labels) -> Array:
    """What each state adds to `probe_skill`, its mean: ``(hit - chance) / (1 - chance)``, ``[n]``."""
    if len(np.unique(labels)) < 2:
        raise ValueError(f"probe: all {len(labels)} test states have one label: nothing can be scored")
    return skills(probe.predict(states), labels)


def probe_skill(probe: LogisticRegression, states: Array, labels: Labels) -> float:
    """Skill of a probe over the share of the largest class."""
    return float(probe_skills(probe, states, labels).mean())


def within_covariance(states: Sequence[Array], labels: Sequence[Labels], ridge: float = 1e-3) -> Array:
    """Covariance around the class means of each family, pooled over families, plus ``ridge * I``."""
    centred = [
        x[y == value] - x[y == value].mean(0) for x, y in zip(states, labels, strict=True) for value in np.unique(y)
    ]
    rows = np.concatenate(centred)
    return rows.T @ rows / max(len(rows) - len(centred), 1) + ridge * np.eye(rows.shape[1])


def inverse_root(covariance: Array) -> Array:
    """Symmetric ``covariance^(-1/2)``; directions without variance become zero."""
    values, vectors = np.linalg.eigh(covariance)
    keep = values > max(values.max(), 0) * 1e-10
    return (vectors[:, keep] / np.sqrt(values[keep])) @ vectors[:, keep].T
