"""What one forward of a training run reads."""

from dataclasses import dataclass
from typing import Literal

from latentlm.data import Given, Pairs
from latentlm.experiment.training import at_least


@dataclass(frozen=True)
class Batch:
    """What one forward sees; of images only `size` and `accumulation` matter.

    Args:
        size: documents or images in a forward on one device.
        accumulation: forwards in one optimizer step.
        max_length: tokens of a document that are kept.
        layout: ``packed`` keeps several segments in a row (documents never see each other); ``flat`` keeps all of them
            in one row, as flash attention needs it; ``rows`` gives each its own row, for models that mix segments.
        row_length: tokens in a packed row; without it a row is one document with its lone spans.
        pairs: which spans are related, and how they are read.
        word_dropout: share of the tokens of each document's last span that are read as another token, so that what
            follows cannot be told from the words just before; what is to be predicted stays. With `pairs.named` only
            where that span is one of these.
        reverse_training: every document is read a second time with its words in reverse order and its spans whole: what
            turning the data round does, beside what the terms do.
        gist: share of the documents in which what follows a span sees of it only its last token: what it stands for
            has to be known there. For attention sdpa or eager.
    """

    size: int = 32
    accumulation: int = 1
    max_length: int = 256
    layout: Literal["packed", "flat", "rows"] = "packed"
    row_length: int | None = None
    pairs: Pairs = Given()
    word_dropout: float = 0.0
    reverse_training: bool = False
    gist: float = 0.0

    def __post_init__(self):
        if not 0 <= self.word_dropout < 1:
            raise ValueError(f"word_dropout: {self.word_dropout}; set it to 0 or more and below 1")
        if not 0 <= self.gist <= 1:
            raise ValueError(f"gist: {self.gist} is a share; set it to 0 - 1")
        if self.gist and self.layout == "flat":
            raise ValueError("gist: hides positions by a mask, and layout flat has none; use packed, or leave it out")
        at_least(1, size=self.size, accumulation=self.accumulation)
        at_least(2, max_length=self.max_length, row_length=self.row_length)
        if self.row_length is not None and self.layout != "packed":
            raise ValueError("row_length: goes with layout packed; leave it out or use layout: packed")

    @property
    def of_spans(self) -> list[str]:
        """Keys in use that need to know where the spans of a document are."""
        return [key for key in ("word_dropout", "gist") if getattr(self, key)]
