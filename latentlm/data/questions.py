"""A test prompt with its gold answer, and the search for spans in a document."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from latentlm.data.documents import Span

Split = Literal["same", "reverse", "both", "composition", "shortcut", "non_reciprocal"]


@dataclass(frozen=True)
class Question:
    """One prompt and what should (or must not) follow it.

    Attributes:
        subset: which facts it comes from, by how they were trained, e.g. ``description_a_to_b``.
        split: ``same`` and ``reverse`` direction of a fact trained one way, ``both`` for a fact trained both ways.
            ``composition`` asks for two steps that are stated one by one.
            In ``shortcut`` the answer is the queried entity itself (echoing is the error), in ``non_reciprocal`` it is
            the wrong converse; for these two lower is better.
        prompt: text without a space at its end.
        answer: what follows the prompt; starts with a space.
        fact: entity-level id; questions of one fact are not independent.
        answer_type: what kind of thing the answer is, e.g. ``name``.
        pool: questions of one pool share their candidates, the distinct answers of that pool.
        choices: what to rank instead, the answer among it. In a pool the k-th choice of every question is the same
            fact's answer, in the question's own wording; one without a pool (``""``) is a multiple-choice question.
        aliases: other right answers to the same prompt. None of them is among the candidates of its pool.
    """

    subset: str
    split: Split
    prompt: str
    answer: str
    fact: str
    answer_type: str
    pool: str
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


def find_spans(text: str, strings: Sequence[str]) -> tuple[Span, ...]:
    """Character offsets ``(start, end)`` of the first match of each string, in the order of `strings`; case is ignored.

    >>> find_spans("The Quiet Lantern is Vela Dorn.", ["Vela Dorn", "quiet lantern"])
    ((21, 30), (4, 17))
    """
    spans = []
    for string in strings:
        match = re.search(re.escape(string), text, re.IGNORECASE) if string else None
        if match is None:
            raise ValueError(f"no span {string!r} in the document {text!r}; give a string that occurs in it")
        spans.append((match.start(), match.end()))
    return tuple(spans)
