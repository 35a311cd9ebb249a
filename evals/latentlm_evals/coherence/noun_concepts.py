"""Sections about one concept of a noun in many contexts: stability, detail and invariance, units."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from latentlm_evals.coherence.measures.invariance import concept_subspace, detail_and_invariance, readable
from latentlm_evals.coherence.measures.stability import Stability, stability
from latentlm_evals.coherence.measures.unit_attribution import flip_coherence, linear_contributions, unit_measures
from latentlm_evals.coherence.stimuli import CONTEXTS, Mention
from latentlm_evals.models.interventions import Lens
from latentlm_evals.probes.context_probes import CoherenceWarning, Family, fit_probe
from latentlm_evals.probes.pca import Space
from latentlm_evals.statistics.arrays import Array, Booleans, Labels

CONCEPTS = ("category", "number")
STABILITY = ("within", "crs", "crs_min", "crs_raw", "lofo", "mcs", "consolidation", "num_readouts", "fracture")
UNSEEN = (4, 5)  # contexts that the concept subspace of `detail` never saw


@dataclass(frozen=True)
class Nouns:
    """States of all mentions at one depth, and what is known of them."""

    rows: Sequence[Mention]
    raw: Array
    components: int
    seed: int

    @cached_property
    def is_test(self) -> Booleans:
        """Which rows belong to held-out nouns."""
        return np.array([row.is_test for row in self.rows])

    @cached_property
    def space(self) -> Space:
        """Coordinates of the training rows."""
        return Space.fit(self.raw[~self.is_test], self.components)

    @cached_property
    def things(self) -> Labels:
        """Number of each row's noun."""
        return np.unique([row.noun for row in self.rows], return_inverse=True)[1]

    @cached_property
    def z(self) -> Array:
        """Coordinates of all rows."""
        return self.space(self.raw)

    def labels(self, concept: str, shuffled: bool = False) -> Labels:
        """Values of a concept; shuffled: nouns (in one number) swap them, in all contexts alike."""
        values = np.array([getattr(row, concept) for row in self.rows])
        if not shuffled:
            return values
        things = sorted({(row.is_test, row.noun, row.number) for row in self.rows})
        draw = np.random.default_rng(self.seed)
        taken: dict[tuple, int] = {}
        for half in (False, True):
            mine = [thing for thing in things if thing[0] is half]
            own = {(row.is_test, row.noun, row.number): value for row, value in zip(self.rows, values, strict=True)}
            taken |= {thing: own[mine[k]] for thing, k in zip(mine, draw.permutation(len(mine)), strict=True)}
        return np.array([taken[row.is_test, row.noun, row.number] for row in self.rows])

    def family(self, context: int, labels: Labels) -> Family:
        """Rows of one context."""
        here = np.array([row.context == context for row in self.rows])
        train, test = here & ~self.is_test, here & self.is_test
        things = self.things
        return Family(self.z[train], labels[train], self.z[test], labels[test], things[train], things[test])

    def families(self, labels: Labels) -> list[Family]:
        """Rows of all contexts."""
        return [self.family(context, labels) for context in range(len(CONTEXTS))]


def quietly(function, *args):
    """The value for a null: that a shuffled label cannot be read is no news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoherenceWarning)
        return function(*args)


def stability_scores(nouns: Nouns, concept: str) -> tuple[dict[str, float], list[list[float]]]:
    """Readout stability of a concept, the same for shuffled labels, and S_ab: trained on a, tested on b."""
    found = stability(nouns.families(nouns.labels(concept)))
    null = quietly(stability, _nameless(nouns.families(nouns.labels(concept, shuffled=True))))
    scores = {name: getattr(found, name) for name in STABILITY} | {"across": _across(found)} | dict(found.intervals)
    nulls = {
        f"{name}_shuffled": getattr(null, name) for name in ("within", "consolidation", "num_readouts", "fracture")
    }
    scores |= nulls | {"across_shuffled": _across(null), "explained": nouns.space.explained}
    return scores, found.transfer.round(4).tolist()


def _across(found: Stability) -> float:
    return float(found.transfer[~np.eye(len(found.transfer), dtype=bool)].mean())


def _nameless(families: Sequence[Family]) -> list[Family]:
    """Without entities: a null needs no interval."""
    return [replace(family, train_entities=None, test_entities=None) for family in families]


def detail_scores(nouns: Nouns, concept: str, base: "Nouns | None" = None) -> dict[str, float]:
    """Inv, Leak, Detail and Joint in contexts that the concept subspace never saw."""

    def measure(shuffled: bool) -> dict[str, float]:
        labels = nouns.labels(concept, shuffled)
        seen = [nouns.family(c, labels) for c in range(len(CONTEXTS)) if c not in UNSEEN]
        train, test, nuisances = _unseen(nouns, concept)
        divisor = None if base is None else _base_detail(base, concept)
        kind = nouns.labels(concept)[test]
        things = None if shuffled else nouns.things[test]
        subspace = concept_subspace(seen)
        return detail_and_invariance(subspace, nouns.z[train], nouns.z[test], kind, nuisances, divisor, things)

    null = quietly(measure, True)
    return measure(False) | {f"{name}_shuffled": null[name] for name in ("inv", "leak", "joint")}


def _unseen(nouns: Nouns, concept: str) -> tuple[Booleans, Booleans, dict[str, tuple[Labels, Labels]]]:
    here = np.array([row.context in UNSEEN for row in nouns.rows])
    train, test = here & ~nouns.is_test, here & nouns.is_test
    other = nouns.labels(next(name for name in CONCEPTS if name != concept))
    template = np.array([2 * row.context + row.template for row in nouns.rows])
    return train, test, {name: (x[train], x[test]) for name, x in (("template", template), ("other", other))}


def _base_detail(base: Nouns, concept: str) -> float:
    train, test, nuisances = _unseen(base, concept)
    return readable(base.z[train], base.z[test], nuisances)


def unit_scores(nouns: Nouns, concept: str) -> dict[str, float]:
    """How many dimensions of the states carry the answer of the probe of all contexts."""

    def measure(shuffled: bool) -> dict[str, float]:
        train, labels = ~nouns.is_test, nouns.labels(concept, shuffled)
        weights = nouns.space.readout(fit_probe(nouns.z[train], labels[train]).coef_)
        return unit_measures(linear_contributions(weights, nouns.raw[nouns.is_test]))

    return measure(False) | {f"{name}_shuffled": value for name, value in measure(True).items()}


def flip_scores(
    lens: Lens, depths: Sequence[int], by_depth: dict[int, Nouns], concept: str, noise: float
) -> dict[int, dict[str, float]]:
    """Do the answers about a noun change together in all contexts when the weights get noise?"""
    first = by_depth[depths[0]]
    picks = [i for i, row in enumerate(first.rows) if row.is_test and row.template == 0]
    picks.sort(key=lambda i: (first.rows[i].context, first.rows[i].noun, first.rows[i].number))
    rows = [first.rows[i] for i in picks]
    flips: dict[int, list[Booleans]] = {depth: [] for depth in depths}
    for draw in range(2):
        with lens.noisy(noise, draw):
            states = lens.states([row.text for row in rows], depths, [row.span for row in rows])
        for place, depth in enumerate(depths):
            nouns, labels = by_depth[depth], by_depth[depth].labels(concept)
            changed = []
            for context in range(len(CONTEXTS)):
                here = [k for k, row in enumerate(rows) if row.context == context]
                family = nouns.family(context, labels)
                probe = fit_probe(family.train, family.train_labels)
                before = probe.predict(nouns.z[[picks[k] for k in here]])
                changed.append(before != probe.predict(nouns.space(states[here, place])))
            flips[depth].append(np.stack(changed))
    return {depth: flip_coherence(np.concatenate(flips[depth], axis=1)) for depth in depths}
