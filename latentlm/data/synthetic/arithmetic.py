"""Arithmetic with answers that a program can check: documents to learn from, and problems to be rewarded on."""

import itertools
import operator
import random
from dataclasses import dataclass
from typing import Literal

from latentlm.data.documents import Document
from latentlm.data.questions import Question
from latentlm.data.text.encode import SETS

VERSION = 1  # part of every seed: raise it whenever a change would alter the problems
_RULES = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@dataclass(frozen=True)
class Problem:
    """A prompt without a space at its end, and the only right answer."""

    prompt: str
    answer: str

    def solved(self, written: str) -> bool:
        """Whether the first line that was written is the answer and nothing else; spaces between digits do not count.

        >>> Problem("4 7 + 3 8 =", "8 5").solved(" 85"), Problem("4 7 + 3 8 =", "8 5").solved(" 8 5 0")
        (True, False)
        """
        lines = written.strip().splitlines()
        return bool(lines) and "".join(lines[0].split()) == "".join(self.answer.split())


@dataclass(frozen=True)
class Arithmetic:
    """Two numbers, an operation, a result: ``4 7 + 3 8 = 8 5``.

    Deterministic in the fields and `VERSION`. No test problem is a training problem, nor one with its numbers swapped.
    A difference is never negative: the larger number comes first. Both sides of the equation are spans.

    Checked:   tests/data/facts/test_arithmetic.py - answers right, split disjoint, same in all processes.

    Args:
        num_train, num_test: problems.
        highest: largest number in a problem.
        operations: out of ``+``, ``-``, ``*``.
        apart: a space between digits, so that a tokenizer of whole words reads them one by one.
        seed: another seed gives other problems.
    """

    num_train: int = 4000
    num_test: int = 200
    highest: int = 99
    operations: tuple[Literal["+", "-", "*"], ...] = ("+",)
    apart: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("num_train", "num_test", "highest"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: {getattr(self, key)}; set it to 1 or more")
        if not self.operations or len(set(self.operations)) < len(self.operations):
            raise ValueError(f"operations: {list(self.operations)}; list each of + - * at most once, and one at least")
        room = (self.highest + 1) * (self.highest + 2) // 2 * len(self.operations)
        if self.num_train + self.num_test > room:
            raise ValueError(f"highest: {self.highest} gives {room} problems < num_train + num_test; raise it")

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return SETS

    def problems(self, split: Literal["train", "test"]) -> list[Problem]:
        """The problems of a split."""
        rng = random.Random(f"arithmetic/{VERSION}/{self.seed}")  # a string seed does not depend on the process
        numbers = itertools.combinations_with_replacement(range(self.highest + 1), 2)
        every = [(sign, *pair) for sign, pair in itertools.product(self.operations, numbers)]
        chosen = rng.sample(every, self.num_test + self.num_train)
        found = [self._problem(sign, *rng.sample(pair, 2)) for sign, *pair in chosen]
        return found[: self.num_test] if split == "test" else found[self.num_test :]

    def documents(self) -> list[Document]:
        """One solved training problem a document."""
        documents = []
        for problem in self.problems("train"):
            text = f"{problem.prompt} {problem.answer}"
            left = problem.prompt.removesuffix(" =")
            documents.append(Document(text, [(0, len(left)), (len(problem.prompt) + 1, len(text))]))
        return documents

    def questions(self) -> list[Question]:
        """The test problems as questions with one answer each."""
        return [
            Question("arithmetic", "same", problem.prompt, f" {problem.answer}", problem.prompt, "result", "arithmetic")
            for problem in self.problems("test")
        ]

    def _problem(self, sign: str, first: int, second: int) -> Problem:
        first, second = (max(first, second), min(first, second)) if sign == "-" else (first, second)
        result = _RULES[sign](first, second)
        return Problem(f"{self._digits(first)} {sign} {self._digits(second)} =", self._digits(result))

    def _digits(self, number: int) -> str:
        return " ".join(str(number)) if self.apart else str(number)
