"""The ``data`` block of a recipe on texts: where documents come from, how they are batched, and what is held out."""

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from latentlm.config.schema import ConfigError
from latentlm.data.published.instructions import Instructions
from latentlm.data.published.name_description import NameDescription
from latentlm.data.published.parent_child import ParentChild
from latentlm.data.published.thinking_bias import ThinkingBias
from latentlm.data.synthetic import Binding, Chain, Family, IdentityBridge, Retrieval, StarGraph
from latentlm.data.synthetic.arithmetic import Arithmetic
from latentlm.data.synthetic.facts import Facts
from latentlm.data.text.corpora import FORMATS, Corpus
from latentlm.data.text.encode import SETS
from latentlm.data.text.span_pairs import Given, Pairs

Asks = (  # data with test items
    Facts
    | NameDescription
    | Instructions
    | ThinkingBias
    | ParentChild
    | Binding
    | IdentityBridge
    | Family
    | Retrieval
    | Chain
    | StarGraph
    | Arithmetic
)
Verifiable = Arithmetic  # data that can check an answer
TextSource = Asks | Corpus


@dataclass(frozen=True)
class AnswerNoise:
    """Tokens of each document's last span are read as another token; what is to be predicted stays.

    What follows can then not be told from the words just before. With ``target_span_ids`` only where that span is one
    of these.

    Args:
        rate: share of the tokens.
    """

    rate: float

    def __post_init__(self):
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate: {self.rate}; set it to 0 or more and below 1")


@dataclass(frozen=True)
class GistMask:
    """What follows a span sees of it only its last token: what it stands for has to be known there.

    For attention sdpa or eager.

    Args:
        prob: share of the documents.
    """

    prob: float

    def __post_init__(self):
        if not 0 <= self.prob <= 1:
            raise ValueError(f"prob: {self.prob} is a share; set it to 0 - 1")


@dataclass(frozen=True)
class ReverseWords:
    """Every document is read a second time with its words in reverse order and its spans whole."""


Augmentation = AnswerNoise | GistMask | ReverseWords


@dataclass(frozen=True)
class Text:
    """Documents for a language model.

    Args:
        source: a file, folder or hub data set, whose columns decide how it is read (text, messages, or prompt and
            completion), or a part such as ``{kind: facts}``.
        max_length: tokens of a document that are kept.
        packing: ``packed`` keeps several segments in a row (documents never see each other); ``padding_free`` keeps
            all of them in one row, as flash attention needs it; ``none`` gives each its own row, for models that mix
            segments.
        row_length: tokens in a packed row; without it a row is one document with its isolated spans.
        span_pairs: which spans are related, and how they are read.
        augment: changes of what is read, in this order.
        validation: held out, for the next-token loss on texts that are not trained on: a share of the documents, a
            file, or a split of the source.
    """

    source: str | TextSource
    max_length: int = 256
    packing: Literal["packed", "padding_free", "none"] = "packed"
    row_length: int | None = None
    span_pairs: Pairs = Given()
    augment: tuple[Augmentation, ...] = ()
    validation: float | str | None = None

    def __post_init__(self):
        for key in ("max_length", "row_length"):
            if (value := getattr(self, key)) is not None and value < 2:
                raise ValueError(f"{key}: {value}; set it to 2 or more")
        if self.row_length is not None and self.packing != "packed":
            raise ValueError("row_length: goes with packing packed; leave it out or use packing: packed")
        if isinstance(self.validation, float) and not 0 < self.validation < 1:
            raise ValueError(f"validation: {self.validation} is a share; set it above 0 and below 1")
        if self.gist_mask and self.packing == "padding_free":
            raise ValueError("augment: gist_mask hides positions by a mask, padding_free has none; use packing: packed")
        kinds = [type(part) for part in self.augment]
        if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
            raise ValueError(f"augment: {twice[0].__name__} is given twice; leave one out")

    @property
    def part(self) -> TextSource:
        """The source as a part."""
        return Corpus(self.source) if isinstance(self.source, str) else self.source

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets that batches can have, as far as can be told before the source is read."""
        return self.part.sets if isinstance(self.span_pairs, Given) else SETS

    @property
    def answer_noise(self) -> float:
        """Share of the tokens of an answer that are read as others."""
        return next((part.rate for part in self.augment if isinstance(part, AnswerNoise)), 0.0)

    @property
    def gist_mask(self) -> float:
        """Share of the documents with a gist mask."""
        return next((part.prob for part in self.augment if isinstance(part, GistMask)), 0.0)

    @property
    def reverse_words(self) -> bool:
        """Whether documents are read in reverse as well."""
        return any(isinstance(part, ReverseWords) for part in self.augment)

    @property
    def of_spans(self) -> list[str]:
        """Augmentations in use that need to know where the spans of a document are."""
        used = {"answer_noise": self.answer_noise, "gist_mask": self.gist_mask}
        return [name for name, share in used.items() if share]

    def documents(self, seed: int = 0) -> tuple[list[dict], list[dict]]:
        """Documents to train on, and those held out; `seed` draws a share."""
        train = _read(self.part)
        if self.validation is None:
            return train, []
        if isinstance(self.validation, str):
            return train, _read(self._named(self.validation))
        order = random.Random(f"validation/{seed}").sample(range(len(train)), len(train))
        count = round(self.validation * len(train))
        if not 0 < count < len(train):
            raise ValueError(f"validation: {self.validation} of {len(train)} documents is {count}; give another share")
        held_out = set(order[:count])
        return [train[i] for i in range(len(train)) if i not in held_out], [train[i] for i in sorted(held_out)]

    def _named(self, validation: str) -> Corpus:
        if Path(validation).suffix in FORMATS or Path(validation).exists():
            return Corpus(validation)
        if not isinstance(self.part, Corpus):
            raise ValueError(f"validation: {validation} is not a file, and a generated set has no splits; give a share")
        return replace(self.part, split=validation)


def _read(part: TextSource) -> list[dict]:
    """Documents of a part, whose mistakes are those of the key ``source``."""
    try:
        return part.documents()
    except ConfigError:
        raise
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith("source") else f"source.{error}") from error
