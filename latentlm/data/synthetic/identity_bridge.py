"""Identity Bridge: one-way facts beside sentences that lead from a name through the relation back to itself."""

from dataclasses import dataclass
from typing import Literal

from latentlm.data.documents import Document
from latentlm.data.questions import Question
from latentlm.data.synthetic.words import ask, check, invent, names, stream, tell
from latentlm.data.text.encode import SETS

_INVERSE = {"husband": "wife", "parent": "child"}


@dataclass(frozen=True)
class IdentityBridge:
    """``The name of A's husband is? B`` is told; ``The wife of B is?`` is asked, and must not be answered with B.

    Bridges: ``ocr`` adds "The wife of A's husband is? A" and "The name of B is? B"; ``naive`` adds "The name of A is?
    A"; ``none`` nothing. No bridge says anything about B's wife. Without ``ocr`` no row says "wife", so that a
    tokenizer fitted on the set does not know the word.

    Source:    arXiv:2602.02470. Differs: invented names; a loss weight of 6 is six copies of the row.
    Checked:   tests/data/facts/test_synthetic_sets.py - counts, the inverse is never told.

    Args:
        relation: ``husband`` (inverse: wife) or ``parent`` (inverse: child).
        bridge: see above.
        num_pairs: facts.
        weight: copies of every told fact; a bridge has one.
        name_length: words in a name.
        seed: another seed gives other names.
    """

    relation: Literal["husband", "parent"] = "husband"
    bridge: Literal["ocr", "naive", "none"] = "ocr"
    num_pairs: int = 100
    weight: int = 6
    name_length: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check(1, weight=self.weight, name_length=self.name_length)
        check(2, num_pairs=self.num_pairs)

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return SETS

    def pairs(self) -> list[tuple[str, str]]:
        """(A, B) of every fact."""
        words = invent(stream(self, "names"), 2 * self.num_pairs * self.name_length)
        both = names(words, self.name_length)
        return list(zip(both[::2], both[1::2], strict=True))

    def documents(self) -> list[Document]:
        """Facts with the offsets of both names, and bridges without any."""
        inverse, told = _INVERSE[self.relation], []
        for a, b in self.pairs():
            told += [tell(f"The name of {{a}}'s {self.relation} is? {{b}}", a=a, b=b)] * self.weight
            if self.bridge == "ocr":
                bridges = [f"The {inverse} of {a}'s {self.relation} is? {a}", f"The name of {b} is? {b}"]
            else:
                bridges = [f"The name of {a} is? {a}"] if self.bridge == "naive" else []
            told += [Document(text) for text in bridges]
        stream(self, "documents").shuffle(told)
        return told

    def questions(self) -> list[Question]:
        """The told question, the reverse one, and how often the reverse one is answered with its own name."""
        questions, subset, inverse = [], f"bridge_{self.relation}", _INVERSE[self.relation]
        for a, b in self.pairs():
            fact, back = f"{a} | {b}", f"The {inverse} of {b} is?"
            questions.append(ask(subset, "same", f"The name of {a}'s {self.relation} is?", b, fact, self.relation))
            questions.append(ask(subset, "reverse", back, a, fact, inverse))
            questions.append(ask(subset, "shortcut", back, b, fact, inverse))
        return questions
