"""Facts about invented people, each told in one order, in the other, or in both."""

import itertools
import math
import random
from dataclasses import dataclass
from typing import Literal

from latentlm.data.documents import Document
from latentlm.data.questions import Question, Split
from latentlm.data.synthetic.templates import MODIFIERS, NOUNS, RELATIONS, Direction
from latentlm.data.synthetic.words import tell
from latentlm.data.text.encode import SETS

VERSION = 1  # part of every seed: raise it whenever a change would alter the facts or the sentences
_Group = Literal["a_to_b", "b_to_a", "both"]
_ONSETS = tuple("bdfgklmnprstvz")
_VOWELS = tuple("aeiou")
_FIRST_ENDINGS = ("an", "el", "in", "on", "us")
_LAST_ENDINGS = ("ack", "eth", "ing", "orn", "und")
_MAX_PARTS = len(_ONSETS) ** 2 * len(_VOWELS) * len(_FIRST_ENDINGS) // 2


@dataclass(frozen=True)
class Fact:
    """A relation between two invented things, and the directions it is trained in."""

    relation: str
    group: _Group
    a: str
    b: str

    @property
    def subset(self) -> str:
        """Name of the facts that share relation and training directions."""
        return f"{self.relation}_{self.group}"


@dataclass(frozen=True)
class Facts:
    """Invented people and what relates them; test prompts ask along and against the trained direction.

    Deterministic in the fields and `VERSION`. Every relation has people of its own. A name is a first and a last name
    out of `name_parts` each, so only the combination tells who is meant; a description is a combination of words.

    `description` relates a name and a description, `mentor` two names that can be told from either side. `admires` is
    told from one side only and its `num_a_to_b` people admire each other in a circle: A admires B, B admires C, so that
    "B admires A" is a wrong converse.

    Source:    construction of Berglund et al. 2023, arXiv:2309.12288, experiment 1. Differs: invented words,
               the asked thing always ends the sentence, more people, relations between names.
    Checked:   tests/data/facts/test_facts.py - split disjoint, one-way facts never told backwards, same in all
               processes.

    Args:
        num_a_to_b, num_b_to_a, num_both: facts of each relation told in that order (`admires`: only the first).
        relations: out of ``description``, ``mentor``, ``admires``.
        templates_per_fact: documents for each fact and direction, each from a different sentence.
        templates: ``fixed``: twelve for each direction; ``compositional``: many more, put together out of phrases, so
            that none can be memorised. The test prompts are the same and among neither.
        name_parts: number of first names, and of last names.
        description_words: number of words the descriptions are made of, half of them nouns.
        description_length: words in a description; the last one is a noun.
        questions_per_split: most questions of each subset, split and answer type.
        seed: another seed gives other people.
    """

    num_a_to_b: int = 200
    num_b_to_a: int = 200
    num_both: int = 800
    relations: tuple[Literal["description", "mentor", "admires"], ...] = ("description",)
    templates_per_fact: int = 12
    templates: Literal["fixed", "compositional"] = "fixed"
    name_parts: int = 40
    description_words: int = 60
    description_length: int = 3
    questions_per_split: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_fields()
        needed, room = self._num_names(), self.name_parts**2
        if needed > room:
            parts = math.isqrt(needed - 1) + 1
            raise ValueError(f"name_parts: {self.name_parts}x{self.name_parts} names < {needed} people; set >= {parts}")
        needed, room = self._num_facts("description"), self._num_descriptions()
        if "description" in self.relations and needed > room:
            raise ValueError(
                f"description_words: {room} descriptions < {needed} people; raise it or description_length"
            )

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return SETS

    def facts(self) -> list[Fact]:
        """All facts, relation by relation."""
        names = iter(self._names())
        facts = []
        for relation in self.relations:
            sizes: dict[_Group, int] = {"a_to_b": self.num_a_to_b, "b_to_a": self.num_b_to_a, "both": self.num_both}
            if relation == "admires":
                circle = list(itertools.islice(names, self.num_a_to_b))
                pairs = list(zip(circle, circle[1:] + circle[:1], strict=True))
                sizes = {"a_to_b": self.num_a_to_b}
            elif relation == "mentor":
                pairs = list(itertools.islice(zip(names, names, strict=False), self._num_facts(relation)))
            else:
                pairs = list(zip(itertools.islice(names, self._num_facts(relation)), self._descriptions(), strict=True))
            groups: list[_Group] = [group for group, size in sizes.items() for _ in range(size)]
            facts += [Fact(relation, group, a, b) for group, (a, b) in zip(groups, pairs, strict=True)]
        return facts

    def documents(self) -> list[Document]:
        """One sentence a document, with the character offsets of the two things it relates, `a` first."""
        rng = self._rng("documents")
        documents = []
        for fact in self.facts():
            for direction in _trained(fact):
                forms = direction.train if self.templates == "fixed" else direction.composed
                for template in rng.sample(forms, self.templates_per_fact):
                    documents.append(tell(template, a=fact.a, b=fact.b))
        rng.shuffle(documents)
        return documents

    def questions(self) -> list[Question]:
        """Prompts from held-out sentences: the trained direction, the other one, echoes and wrong converses."""
        by_subset: dict[str, list[Fact]] = {}
        for fact in self.facts():
            by_subset.setdefault(fact.subset, []).append(fact)
        return [question for facts in by_subset.values() for question in self._subset_questions(facts)]

    def _subset_questions(self, facts: list[Fact]) -> list[Question]:
        group = facts[0].group
        questions = []
        for side in ("b", "a"):
            if RELATIONS[facts[0].relation].b_to_a is None and side == "a":
                continue
            trained_side = {"a_to_b": "b", "b_to_a": "a"}.get(group)
            split: Split = "both" if trained_side is None else "same" if side == trained_side else "reverse"
            questions += self._ask(facts, side, split)
            if split == "reverse":
                questions += self._ask(facts, side, "shortcut")
        if facts[0].relation == "admires":
            questions += self._ask(facts, "b", "non_reciprocal")
        return questions

    def _ask(self, facts: list[Fact], side: str, split: Split) -> list[Question]:
        relation = RELATIONS[facts[0].relation]
        direction = relation.a_to_b if side == "b" else relation.b_to_a
        assert direction is not None
        answer_type = relation.answer_type_b if side == "b" else relation.answer_type_a
        # echoes are measured on the very prompts of the reverse split
        stream = "reverse" if split == "shortcut" else split
        rng = self._rng(f"items/{facts[0].subset}/{stream}/{side}")
        order = rng.sample(range(len(facts)), len(facts))
        offset = [rng.randrange(len(direction.test)) for _ in facts]
        questions = []
        for turn, k in itertools.product(range(len(direction.test)), order):  # every fact once before any twice
            template = direction.test[(offset[k] + turn) % len(direction.test)]
            known, answer = (facts[k].a, facts[k].b) if side == "b" else (facts[k].b, facts[k].a)
            if split == "shortcut":
                answer = known
            elif split == "non_reciprocal":
                known, answer = answer, known
            prompt = template[: template.index("{" + side + "}")].replace("{a}", known).replace("{b}", known).rstrip()
            subset = facts[k].subset
            pool = (
                f"{subset}/{answer_type}" if split in ("same", "reverse", "both") else f"{subset}/{answer_type}/{split}"
            )
            questions.append(
                Question(subset, split, prompt, f" {answer}", f"{facts[k].a} | {facts[k].b}", answer_type, pool)
            )
        return questions[: self.questions_per_split]

    def _names(self) -> list[str]:
        rng = self._rng("names")
        starts = ["".join(parts) for parts in itertools.product(_ONSETS, _VOWELS, _ONSETS)]
        parts, english = [], _english()
        for endings in (_FIRST_ENDINGS, _LAST_ENDINGS):
            words = [start + ending for start, ending in itertools.product(starts, endings)]
            words = [word for word in words if word not in english]
            parts.append([word.capitalize() for word in rng.sample(words, self.name_parts)])
        names = [f"{first} {last}" for first, last in itertools.product(*parts)]
        rng.shuffle(names)
        return names

    def _descriptions(self) -> list[str]:
        rng = self._rng("descriptions")
        num_nouns = self.description_words // 2
        nouns = rng.sample(NOUNS, num_nouns)
        modifiers = rng.sample(MODIFIERS, self.description_words - num_nouns)
        found: dict[frozenset[str], str] = {}
        while len(found) < self._num_facts("description"):
            words = [*rng.sample(modifiers, self.description_length - 1), rng.choice(nouns)]
            found.setdefault(frozenset(words), " ".join(words))  # no two people share all their words
        return list(found.values())

    def _num_facts(self, relation: str) -> int:
        if relation not in self.relations:
            return 0
        return self.num_a_to_b if relation == "admires" else self.num_a_to_b + self.num_b_to_a + self.num_both

    def _num_names(self) -> int:
        return sum(self._num_facts(name) * (2 if name == "mentor" else 1) for name in self.relations)

    def _num_descriptions(self) -> int:
        num_nouns = self.description_words // 2
        return num_nouns * math.comb(self.description_words - num_nouns, self.description_length - 1)

    def _rng(self, stream: str) -> random.Random:
        return random.Random(f"facts/{VERSION}/{self.seed}/{stream}")  # a string seed does not depend on the process

    def _check_fields(self) -> None:
        if not self.relations or len(set(self.relations)) < len(self.relations) or set(self.relations) - set(RELATIONS):
            raise ValueError(f"relations: {self.relations!r}; list each of {', '.join(RELATIONS)} at most once")
        forms = [d for r in RELATIONS.values() for d in (r.a_to_b, r.b_to_a) if d]
        num_templates = min(len(d.train if self.templates == "fixed" else d.composed) for d in forms)
        limits = {
            "num_a_to_b": (3 if "admires" in self.relations else 0, None),
            "num_b_to_a": (0, None),
            "num_both": (0, None),
            "templates_per_fact": (1, num_templates),
            "name_parts": (1, _MAX_PARTS),
            "description_words": (2, 2 * min(len(NOUNS), len(MODIFIERS))),
            "description_length": (1, None),
            "questions_per_split": (1, None),
        }
        for key, (low, high) in limits.items():
            value = getattr(self, key)
            if value < low or (high is not None and value > high):
                raise ValueError(f"{key}: {value}; set it to {low}{f'..{high}' if high is not None else ' or more'}")
        if self.num_a_to_b + self.num_b_to_a + self.num_both == 0:
            raise ValueError("num_both: no facts at all; set num_a_to_b, num_b_to_a or num_both above 0")


def _trained(fact: Fact) -> list[Direction]:
    relation = RELATIONS[fact.relation]
    directions = {"a_to_b": [relation.a_to_b], "b_to_a": [relation.b_to_a], "both": [relation.a_to_b, relation.b_to_a]}
    return [direction for direction in directions[fact.group] if direction is not None]


def _english() -> set[str]:
    directions = [d for r in RELATIONS.values() for d in (r.a_to_b, r.b_to_a) if d is not None]
    sentences = [sentence for d in directions for sentence in d.train + d.test + d.composed]
    return {word.strip(".,").lower() for sentence in sentences for word in sentence.split()} | {*MODIFIERS, *NOUNS}
