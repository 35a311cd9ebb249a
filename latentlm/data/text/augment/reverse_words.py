"""Every document a second time with its words in reverse order."""

import itertools
import random
from dataclasses import dataclass, replace

from latentlm.data.documents import Document, Span
from latentlm.data.text.augment.base import TextAugmentation


@dataclass(frozen=True)
class ReverseWords(TextAugmentation):
    """Add every document with its words in reverse order and its spans whole.

        w_1 .. w_i A w_j .. w_k B w_l .. w_n   ->   w_n .. w_l B w_k .. w_j A w_i .. w_1

    A, B are spans, w words between blanks, all joined by one blank. Spans keep their numbers and edits.

    Source:    reverse training, entity-preserving, Golovneva et al. 2024, arXiv 2403.13799. Differs: spans are those of
               the data, where they ask a detector for names.
    Checked:   tests/data/text/augment/test_reverse_words.py - the equation, spans, twice is once but for blanks.
    """

    def documents(self, documents: list[Document], rng: random.Random) -> list[Document]:
        """The documents, then the reversed ones."""
        return [*documents, *map(reverse_words, documents)]


def reverse_words(document: Document) -> Document:
    """One document reversed.

    Raises:
        ValueError: if the document is a conversation, or spans overlap.
    """
    if document.messages is not None:
        raise ValueError("reverse_words: turns of a conversation have an order; use texts, or leave it out")
    text, spans = document.text, document.spans
    ordered = sorted(range(len(spans)), key=lambda number: spans[number])
    if any(spans[one][1] > spans[two][0] for one, two in itertools.pairwise(ordered)):
        raise ValueError(f"reverse_words: spans of {text[:60]!r} overlap; mark one of them, or leave it out")
    parts: list[tuple[int | None, str]] = []
    done = 0
    for number in ordered:
        start, end = spans[number]
        parts += [(None, word) for word in text[done:start].split()] + [(number, text[start:end])]
        done = end
    parts += [(None, word) for word in text[done:].split()]
    moved: dict[int, Span] = {}
    start = 0
    for number, words in reversed(parts):
        if number is not None:
            moved[number] = start, start + len(words)
        start += len(words) + 1
    reversed_text = " ".join(words for _, words in reversed(parts))
    return replace(document, text=reversed_text, spans=[moved[number] for number in range(len(spans))])
