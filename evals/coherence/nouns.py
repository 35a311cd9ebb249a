"""Sections about one concept of a noun in many contexts: stability, detail and invariance, causal role, units."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import torch
from torch import Tensor

from .causal import amnesic_effect, disentangle, interchange, leace, random_eraser, row_space
from .detail import concept_subspace, detail_and_invariance, readable
from .families import ASK_CATEGORY, CATEGORIES, CONTEXTS, NUMBER_ANSWERS, Mention
from .lens import Lens
from .probes import Array, CoherenceWarning, Family, Labels, caution, fit_probe
from .space import Space
from .stability import stability
from .units import flip_coherence, linear_contributions, unit_measures

CONCEPTS = ("category", "number")
SWAPPED_IN = (0, 1, 4)  # contexts whose subspaces are exchanged: subject, object, question
UNSEEN = (4, 5)  # contexts that the concept subspace of `detail` never saw


@dataclass(frozen=True)
class Nouns:
    """States of all mentions at one depth, and what is known of them."""

    rows: Sequence[Mention]
    raw: Array
    components: int
    seed: int

    @cached_property
    def is_test(self) -> Labels:
        """Which rows belong to held-out nouns."""
        return np.array([row.is_test for row in self.rows])

    @cached_property
    def space(self) -> Space:
        """Coordinates of the training rows."""
        return Space.fit(self.raw[~self.is_test], self.components)

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
        return Family(self.z[train], labels[train], self.z[test], labels[test])

    def families(self, labels: Labels) -> list[Family]:
        """Rows of all contexts."""
        return [self.family(context, labels) for context in range(len(CONTEXTS))]


def quietly(function, *args):
    """The value for a null: that a shuffled label cannot be read is no news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoherenceWarning)
        return function(*args)


def stability_scores(nouns: Nouns, concept: str) -> dict[str, float]:
    """Readout stability of a concept and the same for shuffled labels."""
    found = stability(nouns.families(nouns.labels(concept)))
    null = quietly(stability, nouns.families(nouns.labels(concept, shuffled=True)))
    names = ("within", "crs", "crs_min", "crs_raw", "lofo", "mcs", "consolidation", "num_readouts", "fracture")
    others = ~np.eye(len(found.transfer), dtype=bool)
    scores = {name: getattr(found, name) for name in names} | {"across": float(found.transfer[others].mean())}
    nulls = {
        f"{name}_shuffled": getattr(null, name) for name in ("within", "consolidation", "num_readouts", "fracture")
    }
    return scores | nulls | {"across_shuffled": float(null.transfer[others].mean()), "explained": nouns.space.explained}


def transfer_matrix(nouns: Nouns, concept: str) -> list[list[float]]:
    """S_ab for a report: trained on the row's context, tested on the column's."""
    return quietly(stability, nouns.families(nouns.labels(concept))).transfer.round(4).tolist()


def detail_scores(nouns: Nouns, concept: str, base: "Nouns | None" = None) -> dict[str, float]:
    """Inv, Leak, Detail and Joint in contexts that the concept subspace never saw."""

    def measure(shuffled: bool) -> dict[str, float]:
        labels = nouns.labels(concept, shuffled)
        seen = [nouns.family(c, labels) for c in range(len(CONTEXTS)) if c not in UNSEEN]
        train, test, nuisances = _unseen(nouns, concept)
        divisor = None if base is None else _base_detail(base, concept)
        return detail_and_invariance(
            concept_subspace(seen), nouns.z[train], nouns.z[test], nouns.labels(concept)[test], nuisances, divisor
        )

    null = quietly(measure, True)
    return measure(False) | {f"{name}_shuffled": null[name] for name in ("inv", "leak", "joint")}


def _unseen(nouns: Nouns, concept: str) -> tuple[Labels, Labels, dict[str, tuple[Labels, Labels]]]:
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
    flips: dict[int, list[Array]] = {depth: [] for depth in depths}
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


class Exchange:
    """Interchanges and erasures at one depth of a model that answers for number and category."""

    def __init__(self, lens: Lens, nouns: Nouns, depth: int, pairs: int):
        self.lens, self.nouns, self.depth, self.pairs = lens, nouns, depth, pairs
        self.place = {(row.context, row.noun, row.number): i for i, row in enumerate(nouns.rows) if row.template == 0}
        chosen = (row for row in nouns.rows if row.is_test and row.template == 0 and row.context in SWAPPED_IN)
        self.test = list(chosen)
        self.tokens = {
            "number": [lens.first_token(word) for word in NUMBER_ANSWERS],
            "category": [lens.first_token(word) for word in CATEGORIES],
        }
        # how likely each answer is after any noun: only what the noun adds to it counts
        self.prior: dict[tuple[str, int], Tensor] = {}
        self.plain = {asks: self._ask(self.test, asks) for asks in CONCEPTS}
        for asks, context in product(CONCEPTS, SWAPPED_IN):
            here = [k for k, row in enumerate(self.test) if row.context == context]
            self.prior[asks, context] = self.plain[asks][here][:, self.tokens[asks]].mean(0)

    def known(self, asks: str) -> Array:
        """Whether the model's answer about each test mention is right."""
        return self._answers(self.test, asks, self.plain[asks]) == [getattr(row, asks) for row in self.test]

    def scores(self, concept: str, within: float) -> dict[str, float]:
        """Cause, Isolate and Disentangle inside and across contexts, the amnesic effect, and their nulls."""
        other = next(name for name in CONCEPTS if name != concept)
        known = {asks: self.known(asks) for asks in CONCEPTS}
        found = {"answered": float(known[concept].mean())}
        chosen = {b: self._pairs(b, known) for b in SWAPPED_IN}
        if min(map(len, chosen.values())) < 2:
            caution("unanswered", f"{found['answered']:.0%} of the questions are answered right without a change")
            return found
        hits: dict[tuple[str, str], list[Array]] = {}
        for b, couples in chosen.items():
            mine = {("across" if a != b else "within", a): self._subspace(a, concept, False) for a in SWAPPED_IN}
            mine |= {("shuffled", b): self._subspace(b, concept, True)}
            mine |= {("whole", b): np.eye(len(self.nouns.space.basis))}
            for (kind, _), subspace in mine.items():
                cause = self._swapped(couples, concept, subspace) == [getattr(s, concept) for _, s in couples]
                isolate = self._swapped(couples, other, subspace) == [getattr(base, other) for base, _ in couples]
                hits.setdefault((kind, "cause"), []).append(cause)
                hits.setdefault((kind, "isolate"), []).append(isolate)
        for kind in ("within", "across", "shuffled", "whole"):
            parts = disentangle(np.concatenate(hits[kind, "cause"]), np.concatenate(hits[kind, "isolate"]))
            ending = "" if kind == "within" else f"_{kind}"
            found |= {f"{name}{ending}": value for name, value in parts.items()}
        return found | {"gap": within - found["cause"]} | self._amnesic(concept, other)

    def _amnesic(self, concept: str, other: str) -> dict[str, float]:
        """LEACE fitted on all training rows; the loss on right answers of test rows, in nats."""
        nouns = self.nouns
        z, labels = nouns.z[~nouns.is_test], nouns.labels(concept)[~nouns.is_test]
        eraser = leace(z, labels)
        control = random_eraser(z, eraser.rank, nouns.seed)
        states, found = nouns.z[[self._at(row) for row in self.test]], {}
        for name, asks in (("amnesic", concept), ("amnesic_other", other)):
            gold = torch.tensor([self.tokens[asks][getattr(row, asks)] for row in self.test])[:, None]
            losses = [-self.plain[asks].gather(1, gold)[:, 0].numpy()]
            for erase in (eraser, control):
                shift = torch.from_numpy(nouns.space.back(erase(states) - states))
                losses.append(-self._ask(self.test, asks, shift).gather(1, gold)[:, 0].numpy())
            effect = amnesic_effect(*losses)
            found |= {name: effect["amnesic"], f"{name}_control": effect["random_cost"]}
        return found

    def _subspace(self, context: int, concept: str, shuffled: bool) -> Array:
        family = self.nouns.family(context, self.nouns.labels(concept, shuffled))
        return row_space(fit_probe(family.train, family.train_labels).coef_)

    def _pairs(self, context: int, known: dict[str, Array]) -> list[tuple[Mention, Mention]]:
        """Nouns that differ in both concepts, or keeping the other one would be no feat; both answered right."""
        right = known["number"] & known["category"]
        rows = [row for row, fine in zip(self.test, right, strict=True) if fine and row.context == context]
        couples = [(a, b) for a in rows for b in rows if a.number != b.number and a.category != b.category]
        order = np.random.default_rng(self.nouns.seed).permutation(len(couples))
        return [couples[i] for i in order[: self.pairs]]

    def _swapped(self, couples: list[tuple[Mention, Mention]], asks: str, subspace: Array) -> Array:
        base, source = (self.nouns.z[[self._at(pair[side]) for pair in couples]] for side in (0, 1))
        shift = torch.from_numpy(self.nouns.space.back(interchange(base, source, subspace) - base))
        rows = [pair[0] for pair in couples]
        return self._answers(rows, asks, self._ask(rows, asks, shift))

    def _at(self, row: Mention) -> int:
        return self.place[row.context, row.noun, row.number]

    def _ask(self, rows: Sequence[Mention], asks: str, shift: Tensor | None = None) -> Tensor:
        texts = [row.text + (ASK_CATEGORY if asks == "category" else CONTEXTS[row.context].ask_number) for row in rows]
        edit = None if shift is None else lambda states, picks: states + shift[picks].to(states)
        return self.lens.next_token(texts, self.depth, [row.span for row in rows], edit)

    def _answers(self, rows: Sequence[Mention], asks: str, scores: Tensor) -> Array:
        neutral = torch.zeros(len(self.tokens[asks]))
        prior = torch.stack([self.prior.get((asks, row.context), neutral) for row in rows])
        return (scores[:, self.tokens[asks]] - prior).argmax(1).numpy()
