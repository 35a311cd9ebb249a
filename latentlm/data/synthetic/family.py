"""Family graph: eight relations between ten people; some families never say who the parents are."""

from dataclasses import dataclass

from latentlm.data.documents import Document
from latentlm.data.questions import Question
from latentlm.data.synthetic.words import ask, check, invent, names, some, stream, tell
from latentlm.data.text.encode import SETS

_CHILDREN = {(0, 1): (2, 3), (2, 4): (6, 7), (5, 3): (8, 9)}  # (husband, wife): (son, daughter)
_DOWN = ("husband", "wife", "son", "daughter")


@dataclass(frozen=True)
class Family:
    """``The son of A is B``: 36 facts a family, of which the second group of families hides father and mother.

    Ten people: a couple with a son and a daughter, who both marry and have a son and a daughter each. So husband, wife,
    father, mother, son, daughter, brother and sister have at most one answer. The hidden facts follow from son and
    daughter by an inverse that the first group shows. With `composition` the first group also tells two steps down
    ("The wife of the son of A is C"), and the second is asked for them; every single step was told.

    Source:    arXiv:2509.21993 (1000 families of 10; 36 facts, 24 where parents are hidden). Differs: invented names;
               the tree is ours, as only the counts are published; two-step sentences are added.
    Checked:   tests/data/facts/test_synthetic_sets.py - counts, hidden facts never told, each question has one answer.

    Args:
        num_shown: families that tell all facts.
        num_hidden: families that hide father and mother; they are tested.
        composition: tell and ask two steps.
        name_length: words in a name.
        questions_per_split: most questions of each subset and split.
        seed: another seed gives other names.
    """

    num_shown: int = 50
    num_hidden: int = 50
    composition: bool = True
    name_length: int = 1
    questions_per_split: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        check(1, name_length=self.name_length, questions_per_split=self.questions_per_split, num_hidden=self.num_hidden)
        check(0, num_shown=self.num_shown)

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return SETS

    def families(self) -> list[list[str]]:
        """Ten names each; first the families that show everything."""
        num = 10 * (self.num_shown + self.num_hidden)
        people = names(invent(stream(self, "names"), num * self.name_length), self.name_length)
        return [people[k : k + 10] for k in range(0, num, 10)]

    def documents(self) -> list[Document]:
        """One fact a document, with the offsets of both names."""
        told = []
        for k, family in enumerate(self.families()):
            shown = k < self.num_shown
            facts = [fact for fact in facts_of(family) if shown or fact[1] not in ("father", "mother")]
            told += [(f"The {r} of {{a}} is {{b}}.", a, b) for a, r, b in facts]
            if shown and self.composition:
                told += [(f"The {s} of the {r} of {{a}} is {{b}}.", a, b) for a, r, s, b in steps_of(family)]
        stream(self, "documents").shuffle(told)
        return [tell(template, a=a, b=b) for template, a, b in told]

    def questions(self) -> list[Question]:
        """Of families that hide parents: told facts, hidden ones, echoes, two steps; of the others: all facts."""
        families, rng = self.families(), stream(self, "items")
        hidden = [fact for family in families[self.num_shown :] for fact in facts_of(family)]
        shown = [fact for family in families[: self.num_shown] for fact in facts_of(family)]
        told = [fact for fact in hidden if fact[1] in ("son", "daughter")]
        asked = [fact for fact in hidden if fact[1] in ("father", "mother")]
        num, one, questions = self.questions_per_split, "family_hidden", []
        for a, r, b in some(rng, told, num):
            questions.append(ask(one, "same", f"The {r} of {a} is", b, _fact(a, b), "child"))
        for a, r, b in some(rng, asked, num):
            questions.append(ask(one, "reverse", f"The {r} of {a} is", b, _fact(a, b), "parent"))
            questions.append(ask(one, "shortcut", f"The {r} of {a} is", a, _fact(a, b), "parent"))
        for a, r, b in some(rng, shown, num):
            questions.append(ask("family_shown", "both", f"The {r} of {a} is", b, _fact(a, b), "relative"))
        steps = [step for family in families[self.num_shown :] for step in steps_of(family)] if self.composition else []
        for a, r, s, b in some(rng, steps, num):
            questions.append(ask(one, "composition", f"The {s} of the {r} of {a} is", b, _fact(a, b), "relative"))
        return questions


def _fact(a: str, b: str) -> str:
    return " | ".join(sorted((a, b)))


def facts_of(family: list[str]) -> list[tuple[str, str, str]]:
    """(A, relation, B) for "the relation of A is B"."""
    facts = []
    for (husband, wife), (son, daughter) in _CHILDREN.items():
        facts += [(wife, "husband", husband), (husband, "wife", wife), (son, "sister", daughter)]
        facts += [(daughter, "brother", son)]
        for child, word in ((son, "son"), (daughter, "daughter")):
            facts += [(child, "father", husband), (child, "mother", wife), (husband, word, child), (wife, word, child)]
    return [(family[a], relation, family[b]) for a, relation, b in facts]


def steps_of(family: list[str]) -> list[tuple[str, str, str, str]]:
    """(A, first, second, B) for "the second of the first of A is B", down the tree and never back to A."""
    step = {(a, relation): b for a, relation, b in facts_of(family) if relation in _DOWN}
    return [
        (a, first, second, step[b, second])
        for (a, first), b in step.items()
        for second in _DOWN
        if first in ("son", "daughter") and (b, second) in step
    ]
