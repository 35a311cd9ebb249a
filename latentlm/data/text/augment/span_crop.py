"""Isolated spans without some of their first words."""

import random
import re
from dataclasses import dataclass, replace
from typing import ClassVar

from latentlm.data.documents import Document, SpanEdit
from latentlm.data.text.augment.base import Needs, TextAugmentation, check_share


@dataclass(frozen=True)
class SpanCrop(TextAugmentation):
    """Left-crop isolated sources of four words or more by one word up to half of them.

    Part of a description then says whose it is, as a crop of a picture says what is in it.

    Checked:   tests/data/text/augment/test_span_crop.py - share, at least half stays, names stay whole.

    Args:
        prob: share of the spans that are cropped.
        seed: another seed crops other spans.
    """

    prob: float = 0.5
    seed: int = 0
    stream: ClassVar[str] = "crop"
    needs: ClassVar[tuple[Needs, ...]] = ("isolated_source",)

    def __post_init__(self):
        check_share("span_crop", "prob", self.prob)

    def documents(self, documents: list[Document], rng: random.Random) -> list[Document]:
        """Documents with `skip` in their edits."""

        def cropped(number: int, text: str, edit: SpanEdit) -> SpanEdit:
            words = [match.start() for match in re.finditer(r"\S+", text)]
            if len(words) < 4 or rng.random() >= self.prob:
                return edit
            return replace(edit, skip=words[rng.randint(1, len(words) // 2)])

        return [document.edited(cropped) for document in documents]
