"""Factorization retrieval: keys and values, asked for in either direction."""

from dataclasses import dataclass

from latentlm.data.documents import Document
from latentlm.data.questions import Question
from latentlm.data.synthetic.words import ask, check, invent, names, stream, tell
from latentlm.data.text.encode import SETS

_TOLD = "{k} : {v}"
_FORWARD, _BACK = "value of {k} : {v}", "key of {v} : {k}"


@dataclass(frozen=True)
class Retrieval:
    """``k : v`` is told for all pairs, the queries ``value of k : v`` and ``key of v : k`` for some; the rest is asked.

    Source:    Kitouni et al. 2024, arXiv:2406.05183, retrieval task (key and value of two unique tokens each).
    Checked:   tests/data/facts/test_synthetic_sets.py - unseen queries, unique words.

    Args:
        num_both: pairs whose two queries are told as well.
        num_one_way: pairs that are asked about.
        length: words in a key, and in a value.
        seed: another seed gives other words.
    """

    num_both: int = 200
    num_one_way: int = 100
    length: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check(0, num_both=self.num_both)
        check(2, num_one_way=self.num_one_way)
        check(1, length=self.length)

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return SETS

    def pairs(self) -> list[tuple[str, str]]:
        """(key, value); first the pairs whose queries are told."""
        num = self.num_both + self.num_one_way
        found = [name.lower() for name in names(invent(stream(self, "words"), 2 * num * self.length), self.length)]
        return list(zip(found[::2], found[1::2], strict=True))

    def documents(self) -> list[Document]:
        """Pairs and queries, with the offsets of key and value."""
        pairs = self.pairs()
        told = [(_TOLD, pair) for pair in pairs]
        told += [(query, pair) for pair in pairs[: self.num_both] for query in (_FORWARD, _BACK)]
        stream(self, "documents").shuffle(told)
        return [tell(template, k=key, v=value) for template, (key, value) in told]

    def questions(self) -> list[Question]:
        """Both queries of every pair; backward ones also for echoes."""
        questions = []
        for place, (key, value) in enumerate(self.pairs()):
            fact, back = f"{key} | {value}", f"key of {value} :"
            if place < self.num_both:
                questions.append(ask("retrieval_both", "both", f"value of {key} :", value, fact, "value"))
                questions.append(ask("retrieval_both", "both", back, key, fact, "key"))
                continue
            questions.append(ask("retrieval_one_way", "same", f"value of {key} :", value, fact, "value"))
            questions.append(ask("retrieval_one_way", "reverse", back, key, fact, "key"))
            questions.append(ask("retrieval_one_way", "shortcut", back, value, fact, "key"))
        return questions
