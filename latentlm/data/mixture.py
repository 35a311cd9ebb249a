"""The ``data`` block of a recipe on several sources of text at once: how much of each, and what is trained on each."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from latentlm.config.schema import kind_of
from latentlm.data.documents import Document
from latentlm.data.text.augment import Augmentation
from latentlm.data.text.augment.base import Needs
from latentlm.data.text.collate import Packing
from latentlm.data.text.corpora import Corpus
from latentlm.data.text.dataset_config import Text, TextSource
from latentlm.data.text.encode import LossOn
from latentlm.data.text.encoding_report import LongDocuments
from latentlm.data.text.span_pairs import Annotated, SpanPairs
from latentlm.data.text.units import UnitRule

Stopping = Literal["first_exhausted", "all_exhausted"]
HEAD = 64  # documents of a stream that are looked at before training


@dataclass(frozen=True)
class Part:
    """One source of a mixture; what is not said here is as in ``kind: text``.

    Args:
        source: as of ``kind: text``.
        name: of its metrics, such as ``eval_NAME_loss``; by default that of the file or kind.
        terms: names of the objective's terms that read it; by default all. ``[]``: it has the next-token loss alone.
        streaming: read it while training, for what does not fit in memory: a file, folder or hub data set, shuffled
            within 1,000 documents.
        loss_on: as of ``kind: text``.
        long_documents: as of ``kind: text``.
        units: as of ``kind: text``.
        span_pairs: as of ``kind: text``.
        augment: as of ``kind: text``.
        validation: as of ``kind: text``; its metrics have the part's name.
    """

    source: str | TextSource
    name: str | None = None
    terms: tuple[str, ...] | None = None
    streaming: bool = False
    loss_on: LossOn = "auto"
    long_documents: LongDocuments = "split"
    units: tuple[UnitRule, ...] = ()
    span_pairs: SpanPairs = Annotated()
    augment: tuple[Augmentation, ...] = ()
    validation: float | str | None = None

    def __post_init__(self):
        if self.name is not None and not self.name.replace("_", "").isalnum():
            raise ValueError(f"name: {self.name!r}; use letters, digits and _")
        if not self.streaming:
            return
        if not isinstance(self.source, str | Corpus):
            raise ValueError("streaming: a generated set is in memory; leave it out, or name a file or hub data set")
        if isinstance(self.validation, float):
            raise ValueError(
                "validation: a share needs all documents, and streaming reads them one by one; name a file"
            )
        if self.augment:
            raise ValueError(f"augment: {kind_of(type(self.augment[0]))} needs all documents; leave out streaming")
        if not isinstance(self.span_pairs, Annotated):
            raise ValueError("span_pairs: spans are found in all documents at once; leave out streaming")

    @property
    def stream(self) -> Corpus:
        """Its source, read one by one."""
        corpus = Corpus(self.source) if isinstance(self.source, str) else self.source
        assert isinstance(corpus, Corpus)
        return replace(corpus, streaming=True)

    @property
    def head(self) -> Corpus:
        """The first documents of a stream."""
        most = self.stream.max_documents
        return replace(self.stream, max_documents=HEAD if most is None else min(most, HEAD))

    def held_out(self) -> list[Document]:
        """What is held out of a stream."""
        if not isinstance(self.validation, str):
            return []
        return Text(replace(self.stream, streaming=False)).named(self.validation).documents()

    @property
    def label(self) -> str:
        """Its name."""
        if self.name is not None:
            return self.name
        if isinstance(self.source, str | Corpus):
            path = self.source if isinstance(self.source, str) else self.source.path
            return "".join(char if char.isalnum() else "_" for char in Path(path).stem)
        return kind_of(type(self.source))


@dataclass(frozen=True)
class Mixture:
    """Several sources of text, drawn from by weight (`datasets.interleave_datasets`); every batch can hold all of them.

    An epoch ends with the first part of which every document has been drawn, or with the last; parts that end earlier
    then begin again. Documents of a longer part that an epoch leaves out come first in the next one.

    Checked:   tests/data/test_mixture.py - shares, epochs, terms that read a part only, streaming equal to memory.

    Args:
        parts: the sources.
        weights: how often each is drawn from, in documents, not tokens; they need not sum to 1. By default all alike.
        stopping: ``first_exhausted`` or ``all_exhausted``.
        max_length: most tokens of an example.
        packing: as of ``kind: text``.
        row_length: as of ``kind: text``.
    """

    parts: tuple[Part, ...]
    weights: tuple[float, ...] = ()
    stopping: Stopping = "first_exhausted"
    max_length: int = 256
    packing: Packing = "packed"
    row_length: int | None = None

    def __post_init__(self):
        if not self.parts:
            raise ValueError("parts: give at least one source")
        if self.weights and len(self.weights) != len(self.parts):
            raise ValueError(f"weights: {len(self.weights)} for {len(self.parts)} parts; give one for each")
        if any(not 0 < weight < float("inf") for weight in self.weights):
            raise ValueError(f"weights: {list(self.weights)}; each must be above 0 (leave out a part of weight 0)")
        names = [part.label for part in self.parts]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"parts: two are named '{twice[0]}'; give them a name each")
        for number, part in enumerate(self.parts):
            try:
                self.text(part)
            except ValueError as error:
                raise ValueError(f"parts[{number}].{error}") from error

    def text(self, part: Part) -> Text:
        """A part as data of their own; of a stream its first documents, without what is held out."""
        return Text(
            source=part.head if part.streaming else part.source,
            max_length=self.max_length,
            long_documents=part.long_documents,
            loss_on=part.loss_on,
            units=part.units,
            packing=self.packing,
            row_length=self.row_length,
            span_pairs=part.span_pairs,
            augment=part.augment,
            validation=None if part.streaming else part.validation,
        )

    @property
    def shares(self) -> list[float]:
        """Weights that sum to 1."""
        weights = self.weights or (1.0,) * len(self.parts)
        return [weight / sum(weights) for weight in weights]

    @property
    def validation(self) -> float | str | None:
        """What is held out of the first part that holds something out."""
        return next((part.validation for part in self.parts if part.validation is not None), None)

    @property
    def streaming(self) -> bool:
        """Whether one of the parts is read while training."""
        return any(part.streaming for part in self.parts)

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets that batches can have."""
        return tuple(dict.fromkeys(name for part in self.parts for name in self.text(part).sets))

    @property
    def grains(self) -> tuple[str, ...]:
        """Grains of units that terms can name."""
        return tuple(dict.fromkeys(grain for part in self.parts for grain in self.text(part).grains))

    def needing(self, need: Needs) -> list[str]:
        """Kinds of the augmentations that need something."""
        return [kind for part in self.parts for kind in self.text(part).needing(need)]
