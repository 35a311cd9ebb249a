"""Isolated spans followed by words that follow such spans elsewhere."""

import itertools
import random
import re
from dataclasses import dataclass, replace
from typing import ClassVar

from latentlm.data.documents import Document, SpanEdit
from latentlm.data.text.augment.base import Needs, TextAugmentation, check_share

_MAX_WORDS = 8


@dataclass(frozen=True)
class Continuation(TextAugmentation):
    """Extend isolated sources by up to eight words that follow a span of the same number in some document.

    The words end where that document's next span begins. The source is then read at the last of them, so what is known
    of it must be kept while reading on.

    Checked:   tests/data/text/augment/test_continuation.py - share, which words, that only isolated sources change.

    Args:
        prob: share of the spans that are extended.
        seed: another seed draws other words.
    """

    prob: float = 0.5
    seed: int = 0
    stream: ClassVar[str] = "read_on"
    needs: ClassVar[tuple[Needs, ...]] = ("isolated_source",)

    def __post_init__(self):
        check_share("continuation", "prob", self.prob)

    def documents(self, documents: list[Document], rng: random.Random) -> list[Document]:
        """Documents with `suffix` in their edits."""
        by_number, anywhere = _words_between_spans(documents)
        if not anywhere:
            return documents

        def extended(number: int, text: str, edit: SpanEdit) -> SpanEdit:
            if rng.random() >= self.prob:
                return edit
            return replace(edit, suffix=rng.choice(by_number.get(number, anywhere)))

        return [document.edited(extended) for document in documents]


def _words_between_spans(documents: list[Document]) -> tuple[dict[int, list[str]], list[str]]:
    """What is between a span and the next one, by the number of the span (a name, a description), and all of it."""
    by_number: dict[int, list[str]] = {}
    anywhere: list[str] = []
    for document in documents:
        ordered = sorted(enumerate(document.spans), key=lambda numbered: numbered[1])
        for (number, (_, end)), (_, (start, _)) in itertools.pairwise(ordered):
            words = [match.end() for match in re.finditer(r"\S+", document.text[end:start])]
            if words:
                gap = document.text[end : end + words[min(len(words), _MAX_WORDS) - 1]]
                by_number.setdefault(number, []).append(gap)
                anywhere.append(gap)
    return by_number, anywhere
