"""A random hierarchy whose every level is known: sentences, the labels of all levels, and the exact entropy."""

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from latentlm.data.documents import Document
from latentlm.data.questions import Question
from latentlm.data.synthetic.words import check
from latentlm.data.text.encode import SETS

VERSION = 1  # part of every seed: raise it whenever a change would alter rules or sentences
LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ROWS = 2048  # sentences that are scored at a time
Symbols = NDArray[np.int64]


@dataclass(frozen=True)
class Grammar:
    """Sentences of a random hierarchy grammar: a symbol of each level is written as symbols of the level below.

        x_depth ~ uniform;   a symbol of level l -> `branching` symbols of level l - 1, by one of its `rules`, uniform

    No two rules of a level write the same symbols, so a sentence has one reading, all sentences are equally likely, and
    what a perfect model would lose on each token is known (`surprise`). A unit of level l is ``branching ** l`` tokens.
    Deterministic in the fields and `VERSION`; no held-out sentence is trained on, and those held out do not depend on
    how many `sentences` there are.

    Source:    random hierarchy model, Cagnetta et al. 2024, arXiv:2307.02129. Differs: next tokens instead of classes.
    Checked:   tests/data/facts/test_grammar.py - entropy against all sentences of a small grammar, one reading each,
               split disjoint.

    Args:
        depth: levels above the tokens.
        branching: symbols that each symbol is written as.
        symbols: of each level; at most 26, the letters.
        rules: ways to write each symbol; at most ``symbols ** (branching - 1)``, with which nothing can be predicted.
        sentences: to train on, all different.
        held_out: further ones, for ``validation: held_out`` and the evaluation.
        seed: another seed gives another grammar.
    """

    depth: int = 3
    branching: int = 2
    symbols: int = 8
    rules: int = 6
    sentences: int = 8192
    held_out: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        check(1, depth=self.depth, rules=self.rules, sentences=self.sentences, held_out=self.held_out)
        check(2, branching=self.branching, symbols=self.symbols)
        if self.symbols > len(LETTERS):
            raise ValueError(f"symbols: {self.symbols}; set it to {len(LETTERS)} or less")
        if self.rules > (most := self.symbols ** (self.branching - 1)):
            raise ValueError(f"rules: {self.rules} would write the same symbols twice; set it to {most} or less")
        if self.length > 512:
            raise ValueError(f"depth: {self.depth} gives sentences of {self.length} tokens; make it 512 or less")
        if self.sentences + self.held_out > self.count:
            raise ValueError(
                f"sentences: {self.sentences} and {self.held_out} held out, but the grammar has only {self.count}; "
                "raise depth or rules"
            )

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return SETS

    def questions(self) -> list[Question]:
        """It asks nothing; `latentlm eval grammar` scores what is known of it."""
        return []

    @property
    def length(self) -> int:
        """Tokens of a sentence."""
        return self.branching**self.depth

    @property
    def count(self) -> int:
        """Different sentences that there are."""
        return self.symbols * self.rules ** sum(self.branching**level for level in range(self.depth))

    @cached_property
    def productions(self) -> list[Symbols]:
        """For each level, the lowest first, what its rules write: ``[symbols rules branching]``."""
        shape = self.symbols, self.rules, self.branching
        found = []
        for level in range(self.depth):
            rng = random.Random(f"grammar/{VERSION}/{self.seed}/rules/{level}")
            written = np.array(rng.sample(range(self.symbols**self.branching), self.symbols * self.rules))
            digits = [(written // self.symbols**place) % self.symbols for place in reversed(range(self.branching))]
            found.append(np.stack(digits, -1).reshape(shape))
        return found

    def levels(self, split: Literal["train", "held_out"]) -> list[Symbols]:
        """Symbols of all sentences at every level: ``[0]`` are tokens ``[n length]``, the last are roots ``[n 1]``."""
        rng = random.Random(f"grammar/{VERSION}/{self.seed}/sentences")
        drawn: dict[int, None] = {}
        while len(drawn) < self.held_out + self.sentences:
            drawn[rng.randrange(self.count)] = None
        numbers = list(drawn)
        numbers = numbers[: self.held_out] if split == "held_out" else numbers[self.held_out :]
        symbols = np.array([number % self.symbols for number in numbers])[:, None]
        rest, found = [number // self.symbols for number in numbers], [symbols]
        for rules in reversed(self.productions):
            width = symbols.shape[1]
            choice = np.array([_digits(number, self.rules, width) for number in rest])
            rest = [number // self.rules**width for number in rest]
            symbols = rules[symbols, choice].reshape(len(numbers), -1)
            found.append(symbols)
        return found[::-1]

    def documents(self) -> list[Document]:
        """The sentences to train on, in random order, with the units of every level."""
        return self._documents("train")

    def held_out_documents(self) -> list[Document]:
        """Those that are never trained on."""
        return self._documents("held_out")

    def surprise(self, tokens: Symbols) -> NDArray[np.float64]:
        """What the grammar itself loses on each token, in nats: ``-log p(x_t | x_<t)``, exact, ``[n length]``.

        The sum over a sentence is the same for all: ``log`` of how many there are.
        """
        parts = [self._surprise(tokens[row : row + _ROWS]) for row in range(0, len(tokens), _ROWS)]
        return np.concatenate(parts) if parts else np.zeros((0, self.length))

    def read(self, text: str) -> Symbols:
        """Symbols of a sentence's tokens."""
        return np.array([LETTERS.index(letter) for letter in text.split()])

    def _documents(self, split: Literal["train", "held_out"]) -> list[Document]:
        return [Document(" ".join(LETTERS[symbol] for symbol in row)) for row in self.levels(split)[0]]

    def _surprise(self, tokens: Symbols) -> NDArray[np.float64]:
        known = np.eye(self.symbols)[tokens]  # n t v
        logs = []
        for seen in range(self.length + 1):  # probability of the first tokens, whatever follows
            inside = np.where((np.arange(self.length) < seen)[:, None], known, 1.0)
            for rules in self.productions:
                parts = inside.reshape(len(tokens), -1, self.branching, self.symbols)
                written = [parts[:, :, place][..., rules[..., place]] for place in range(self.branching)]
                inside = np.prod(written, 0).mean(-1)  # n units v
            logs.append(np.log(inside[:, 0].mean(-1)))
        found = np.stack(logs, 1)
        return found[:, :-1] - found[:, 1:]


def _digits(number: int, base: int, count: int) -> list[int]:
    """The last `count` digits of a number, the last one first."""
    digits = []
    for _ in range(count):
        number, digit = divmod(number, base)
        digits.append(digit)
    return digits
