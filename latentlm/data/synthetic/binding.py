"""The binding task: relations and their inverses between entities that only a combination of tokens names."""

from dataclasses import dataclass
from typing import Literal

from latentlm.data.documents import Document
from latentlm.data.questions import Question
from latentlm.data.synthetic.words import ask, check, invent, some, stream
from latentlm.data.text.encode import SETS

Triple = tuple[str, str, str]  # head, relation, tail


@dataclass(frozen=True)
class Binding:
    """Facts ``h r t`` with every inverse ``t r' h``; some entities are told both ways, the others one way.

    For each of `num_relations` pairs (r, r') a random perfect matching of each group of entities is drawn. Facts of the
    first group are told in both directions, those of the second in a random one; the other one is the test. At the
    surface level an entity is two words, each shared by `multiplicity` entities, so that only the pair names it.

    Source:    Wang and Sun 2025, arXiv:2504.01928, section 3. Differs: smaller by default, words of five letters for
               its tokens, loss on the whole sentence.
    Checked:   tests/data/facts/test_synthetic_sets.py - matchings, multiplicity, split disjoint, known counts.

    Args:
        level: ``concept``: an entity is one word; ``surface``: two.
        multiplicity: entities that share a word, at the surface level.
        num_both: entities told in both directions.
        num_one_way: entities told in one; the source has 0.6 times as many.
        num_relations: pairs of a relation and its inverse.
        questions_per_split: most questions of each subset and split.
        seed: another seed gives other words and facts.
    """

    level: Literal["surface", "concept"] = "surface"
    multiplicity: int = 10
    num_both: int = 1000
    num_one_way: int = 600
    num_relations: int = 6
    questions_per_split: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        check(
            1,
            multiplicity=self.multiplicity,
            num_relations=self.num_relations,
            questions_per_split=self.questions_per_split,
        )
        check(2, num_both=self.num_both, num_one_way=self.num_one_way)
        for key in ("num_both", "num_one_way"):
            if getattr(self, key) % 2:
                raise ValueError(f"{key}: {getattr(self, key)} entities cannot be matched in pairs; make it even")
        num = self.num_both + self.num_one_way
        if self.level == "surface" and (num % self.multiplicity or num < self.multiplicity**2):
            raise ValueError(
                f"multiplicity: {num} entities need a divisor of it and at most its root; {self.multiplicity} is not"
            )

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return SETS

    def entities(self) -> list[str]:
        """First those told both ways, then those told one way."""
        num, rng = self.num_both + self.num_one_way, stream(self, "entities")
        if self.level == "concept":
            return invent(rng, num)
        side = num // self.multiplicity
        parts = invent(rng, 2 * side)
        found = [
            f"{parts[k]} {parts[side + (k + step) % side]}" for k in range(side) for step in range(self.multiplicity)
        ]
        rng.shuffle(found)
        return found

    def facts(self) -> dict[str, list[tuple[Triple, Triple]]]:
        """``both`` and ``one_way``: pairs of a fact and its inverse; of the latter the first is told."""
        entities = self.entities()
        taken = {word for entity in entities for word in entity.split()}
        spare = len(taken) + 2 * self.num_relations
        verbs = [word for word in invent(stream(self, "relations"), spare) if word not in taken]
        groups = {"both": entities[: self.num_both], "one_way": entities[self.num_both :]}
        rng, facts = stream(self, "facts"), {}
        for group, members in groups.items():
            facts[group] = []
            for k in range(self.num_relations):
                order = rng.sample(members, len(members))
                for head, tail in zip(order[::2], order[1::2], strict=True):
                    pair = (head, verbs[2 * k], tail), (tail, verbs[2 * k + 1], head)
                    turned = group == "one_way" and rng.random() < 0.5
                    facts[group].append(pair[::-1] if turned else pair)
        return facts

    def documents(self) -> list[Document]:
        """One fact a document, with the offsets of head and tail."""
        facts = self.facts()
        told = [triple for pair in facts["both"] for triple in pair] + [forward for forward, _ in facts["one_way"]]
        stream(self, "documents").shuffle(told)
        return [_document(triple) for triple in told]

    def questions(self) -> list[Question]:
        """The told and the other direction of facts told one way, how often the head is echoed, and the told both."""
        facts, rng = self.facts(), stream(self, "items")
        one_way = some(rng, facts["one_way"], self.questions_per_split)
        same = [_question("one_way", "same", forward, forward) for forward, _ in one_way]
        reverse = [_question("one_way", "reverse", back, forward) for forward, back in one_way]
        echo = [_question("one_way", "shortcut", (h, r, h), forward) for forward, (h, r, _) in one_way]
        both = [triple for pair in facts["both"] for triple in pair]
        return (
            same + reverse + echo + [_question("both", "both", t, t) for t in some(rng, both, self.questions_per_split)]
        )


def _document(triple: Triple) -> Document:
    head, relation, tail = triple
    start = len(head) + len(relation) + 2
    return Document(f"{head} {relation} {tail}", [(0, len(head)), (start, start + len(tail))])


def _question(group: str, split, triple: Triple, told: Triple) -> Question:
    head, relation, tail = triple
    fact = " | ".join(told) if group == "one_way" else " | ".join(sorted((head, tail)))
    return ask(f"binding_{group}", split, f"{head} {relation}", tail, fact, "entity")
