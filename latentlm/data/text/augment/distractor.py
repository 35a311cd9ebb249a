"""Isolated spans followed by a wrong target."""

import random
from dataclasses import dataclass, replace
from typing import ClassVar

from latentlm.data.documents import Document, SpanEdit
from latentlm.data.text.augment.base import Needs, TextAugmentation, check_share


@dataclass(frozen=True)
class Distractor(TextAugmentation):
    """Append the beginning of a wrong target, from another document, to isolated sources.

    It is a span with the number of the target, one token shorter than the target. Where the target's tokens are due
    (`target_positions`), the words just before do not tell them.

    Checked:   tests/data/text/augment/test_distractor.py - share, never the right one, positions.

    Args:
        prob: share of the targets for which one is drawn; where the right one is drawn, none is appended.
        seed: another seed draws others.
    """

    prob: float = 0.5
    seed: int = 0
    stream: ClassVar[str] = "strangers"
    needs: ClassVar[tuple[Needs, ...]] = ("isolated_source",)

    def __post_init__(self):
        check_share("distractor", "prob", self.prob)

    def documents(self, documents: list[Document], rng: random.Random) -> list[Document]:
        """Documents with `decoy` in their edits."""
        by_number: dict[int, list[str]] = {}
        for document in documents:
            for number in range(len(document.spans)):
                by_number.setdefault(number, []).append(document.span_text(number))

        def with_decoy(number: int, text: str, edit: SpanEdit) -> SpanEdit:
            drawn = rng.choice(by_number[number])
            wrong = rng.random() < self.prob and drawn.lower() != text.lower()
            return replace(edit, decoy=drawn) if wrong else edit

        return [document.edited(with_decoy) for document in documents]
