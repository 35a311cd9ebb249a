"""Section about the causal role of a concept: interchange and erasure of a probe's subspace at the noun."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from latentlm_evals.coherence.measures.causal import (
    amnesic_effect,
    disentangle,
    interchange,
    leace,
    random_eraser,
    row_space,
)
from latentlm_evals.coherence.noun_concepts import CONCEPTS, Nouns
from latentlm_evals.coherence.stimuli import ASK_CATEGORY, CATEGORIES, CONTEXTS, NUMBER_ANSWERS, Mention
from latentlm_evals.models.interventions import Lens
from latentlm_evals.probes.context_probes import caution, fit_probe, probe_skill
from latentlm_evals.statistics.arrays import ROUNDING, Array, Booleans, Labels, is_flat

SWAPPED_IN = (0, 1, 4)  # contexts whose subspaces are exchanged: subject, object, question
SCORES = ("answered", "cause", "isolate", "disentangle", "gap", "amnesic", "amnesic_other")


def question(row: Mention, concept: str) -> str:
    """The text of a mention, and what asks for its category or number."""
    return row.text + (ASK_CATEGORY if concept == "category" else CONTEXTS[row.context].ask_number)


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
        self.plain = {concept: self._ask(self.test, concept) for concept in CONCEPTS}
        for concept, context in product(CONCEPTS, SWAPPED_IN):
            here = [k for k, row in enumerate(self.test) if row.context == context]
            self.prior[concept, context] = self.plain[concept][here][:, self.tokens[concept]].mean(0)

    def known(self, concept: str) -> Booleans:
        """Whether the model's answer about each test mention is right."""
        return self._answers(self.test, concept, self.plain[concept]) == np.array(
            [getattr(row, concept) for row in self.test]
        )

    def scores(self, concept: str) -> dict[str, float]:
        """Cause, Isolate and Disentangle inside and across contexts, the amnesic effect, and their nulls."""
        other = next(name for name in CONCEPTS if name != concept)
        families = [self.nouns.family(context, self.nouns.labels(concept)) for context in SWAPPED_IN]
        if not self._depends(concept):
            return dict.fromkeys(SCORES, caution("collapsed", "the answers do not depend on the noun"))
        if is_flat(*(family.train for family in families)):
            return dict.fromkeys(SCORES, caution("collapsed", "all nouns have the same state in a context"))
        within = float(
            np.mean([probe_skill(fit_probe(f.train, f.train_labels), f.test, f.test_labels) for f in families])
        )
        known = {name: self.known(name) for name in CONCEPTS}
        found = {"answered": float(known[concept].mean())}
        chosen = {b: self._pairs(b, known) for b in SWAPPED_IN}
        if min(map(len, chosen.values())) < 2:
            caution("unanswered", f"{found['answered']:.0%} of the questions are answered right without a change")
            return found
        hits: dict[tuple[str, str], list[Booleans]] = {}
        for b, couples in chosen.items():
            mine = {("across" if a != b else "within", a): self._subspace(a, concept, False) for a in SWAPPED_IN}
            mine |= {("shuffled", b): self._subspace(b, concept, True)}
            mine |= {("whole", b): np.eye(len(self.nouns.space.basis))}
            for (kind, _), subspace in mine.items():
                cause = self._swapped(couples, concept, subspace) == np.array([getattr(s, concept) for _, s in couples])
                isolate = self._swapped(couples, other, subspace) == np.array(
                    [getattr(base, other) for base, _ in couples]
                )
                hits.setdefault((kind, "cause"), []).append(cause)
                hits.setdefault((kind, "isolate"), []).append(isolate)
        for kind in ("within", "across", "shuffled", "whole"):
            parts = disentangle(np.concatenate(hits[kind, "cause"]), np.concatenate(hits[kind, "isolate"]))
            ending = "" if kind == "within" else f"_{kind}"
            found |= {f"{name}{ending}": value for name, value in parts.items()}
        return found | {"gap": within - found["cause"]} | self._amnesic(concept, other)

    def _depends(self, concept: str) -> bool:
        """Whether the log-probs of the answers differ between nouns by more than rounding."""
        states = self.plain[concept][:, self.tokens[concept]]
        prior = torch.stack([self.prior[concept, row.context] for row in self.test])
        return float((states - prior).abs().max()) > ROUNDING * float(states.abs().max())

    def _amnesic(self, concept: str, other: str) -> dict[str, float]:
        """LEACE fitted on all training rows; the loss on right answers of test rows, in nats."""
        nouns = self.nouns
        z, labels = nouns.z[~nouns.is_test], nouns.labels(concept)[~nouns.is_test]
        eraser = leace(z, labels)
        control = random_eraser(z, eraser.rank, nouns.seed)
        states, found = nouns.z[[self._at(row) for row in self.test]], {}
        for name, about in (("amnesic", concept), ("amnesic_other", other)):
            gold = torch.tensor([self.tokens[about][getattr(row, about)] for row in self.test])[:, None]
            losses = [-self.plain[about].gather(1, gold)[:, 0].numpy()]
            for erase in (eraser, control):
                shift = torch.from_numpy(nouns.space.back(erase(states) - states))
                losses.append(-self._ask(self.test, about, shift).gather(1, gold)[:, 0].numpy())
            effect = amnesic_effect(*losses)
            found |= {name: effect["amnesic"], f"{name}_control": effect["random_cost"]}
        return found

    def _subspace(self, context: int, concept: str, shuffled: bool) -> Array:
        family = self.nouns.family(context, self.nouns.labels(concept, shuffled))
        return row_space(fit_probe(family.train, family.train_labels).coef_)

    def _pairs(self, context: int, known: dict[str, Booleans]) -> list[tuple[Mention, Mention]]:
        """Nouns that differ in both concepts, or keeping the other one would be no feat; both answered right."""
        right = known["number"] & known["category"]
        rows = [row for row, fine in zip(self.test, right, strict=True) if fine and row.context == context]
        couples = [(a, b) for a in rows for b in rows if a.number != b.number and a.category != b.category]
        order = np.random.default_rng(self.nouns.seed).permutation(len(couples))
        return [couples[i] for i in order[: self.pairs]]

    def _swapped(self, couples: list[tuple[Mention, Mention]], concept: str, subspace: Array) -> Labels:
        base, source = (self.nouns.z[[self._at(pair[side]) for pair in couples]] for side in (0, 1))
        shift = torch.from_numpy(self.nouns.space.back(interchange(base, source, subspace) - base))
        rows = [pair[0] for pair in couples]
        return self._answers(rows, concept, self._ask(rows, concept, shift))

    def _at(self, row: Mention) -> int:
        return self.place[row.context, row.noun, row.number]

    def _ask(self, rows: Sequence[Mention], concept: str, shift: Tensor | None = None) -> Tensor:
        texts = [question(row, concept) for row in rows]
        edit = None if shift is None else lambda states, picks: states + shift[picks].to(states)
        return self.lens.next_token(texts, self.depth, [row.span for row in rows], edit)

    def _answers(self, rows: Sequence[Mention], concept: str, scores: Tensor) -> Labels:
        neutral = torch.zeros(len(self.tokens[concept]))
        prior = torch.stack([self.prior.get((concept, row.context), neutral) for row in rows])
        return (scores[:, self.tokens[concept]] - prior).argmax(1).numpy()
