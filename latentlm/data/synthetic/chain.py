"""Chains A => B => C: both neighbours of B, and how often one is taken for the other."""

from dataclasses import dataclass

from latentlm.data.documents import Document
from latentlm.data.questions import Question
from latentlm.data.synthetic.words import ask, check, invent, stream, tell
from latentlm.data.text.encode import SETS


@dataclass(frozen=True)
class Chain:
    """``a => b => c`` and its two links are told; ``b =>`` must give c, ``b <=`` must give a, and never the other.

    `num_both` chains are also told backwards (``c <= b <= a``), so that the sign is known.

    Source:    Kitouni et al. 2024, arXiv:2406.05183, relationship task A => B => C. Differs: the links are told alone
               too, so that a question opens as a sentence does.
    Checked:   tests/data/facts/test_synthetic_sets.py - tested chains never told backwards, wrong inferences are the
               other neighbour.

    Args:
        num_both: chains told in both directions.
        num_one_way: chains told forward, and asked about.
        seed: another seed gives other words.
    """

    num_both: int = 200
    num_one_way: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check(0, num_both=self.num_both)
        check(2, num_one_way=self.num_one_way)

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return SETS

    def chains(self) -> list[tuple[str, str, str]]:
        """Three words each; first those told both ways."""
        words = invent(stream(self, "words"), 3 * (self.num_both + self.num_one_way))
        return list(zip(words[::3], words[1::3], words[2::3], strict=True))

    def documents(self) -> list[Document]:
        """Chains and links, with the offsets of their words."""
        told = []
        for place, (a, b, c) in enumerate(self.chains()):
            told += [
                tell("{a} => {b} => {c}", a=a, b=b, c=c),
                tell("{a} => {b}", a=a, b=b),
                tell("{b} => {c}", b=b, c=c),
            ]
            if place < self.num_both:
                told += [tell("{c} <= {b} <= {a}", a=a, b=b, c=c)]
                told += [tell("{b} <= {a}", a=a, b=b), tell("{c} <= {b}", b=b, c=c)]
        stream(self, "documents").shuffle(told)
        return told

    def questions(self) -> list[Question]:
        """What follows the middle, what precedes it, and the wrong neighbour for either."""
        questions = []
        for a, b, c in self.chains()[self.num_both :]:
            fact = f"{a} | {b} | {c}"
            questions.append(ask("chain", "same", f"{b} =>", c, fact, "next"))
            questions.append(ask("chain", "reverse", f"{b} <=", a, fact, "previous"))
            questions.append(ask("chain", "shortcut", f"{b} <=", b, fact, "previous"))
            questions.append(ask("chain", "non_reciprocal", f"{b} =>", a, fact, "next"))
            questions.append(ask("chain", "non_reciprocal", f"{b} <=", c, fact, "previous"))
        return questions
