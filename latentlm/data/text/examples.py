"""An encoded document, and its form in a data set: plain columns, which Arrow and the loader's workers carry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class SpanPair:
    """A source span, where it is read, and the target span that is predicted from it.

    Indices are those of the sequence that the source is read in: the document, or the isolated source.

    Attributes:
        source_last: the source's last token.
        target_ids: the target's tokens, as they continue a running text.
        isolated_source: a sequence of its own in which the source is read; empty: the document.
        before_target: the document's last token before the target where that comes later, else -1.
        target_positions: after which tokens those of the target are due, in their order; may be fewer than these.
        isolated_target: the target as a sequence of its own, if anything reads it so.
    """

    source_last: int
    target_ids: Sequence[int]
    isolated_source: Sequence[int] = ()
    before_target: int = -1
    target_positions: Sequence[int] = ()
    isolated_target: Sequence[int] = ()

    def moved(self, by: int) -> "SpanPair":
        """The same pair in a document that begins elsewhere; an isolated source does not move."""
        if not by:
            return self
        before = self.before_target + by if self.before_target >= 0 else -1
        if self.isolated_source:
            return replace(self, before_target=before)
        positions = [position + by for position in self.target_positions]
        return replace(self, source_last=self.source_last + by, before_target=before, target_positions=positions)


@dataclass(frozen=True)
class Example:
    """An encoded document.

    Attributes:
        input_ids, labels: of the whole document; -100 is not predicted.
        span_pairs: pairs of its spans.
        spans: tokens of each span, ``[first, stop)``, in the order in which they end.
        answer: the last of these if it can be a target, else ``[0, 0)``.
        units: tokens of each unit and its role, ``[first, stop, role]``, by grain.
        read_units: whether its units are also read alone, where a term asks for that.
        hidden: ``(first, stop, since)``: the tokens first to stop - 1 cannot be attended to from `since` on.
        part: number of the part of a mixture that it is from.
    """

    input_ids: Sequence[int]
    labels: Sequence[int]
    span_pairs: Sequence[SpanPair] = ()
    spans: Sequence[Sequence[int]] = ()
    answer: Sequence[int] = (0, 0)
    hidden: Sequence[Sequence[int]] = ()
    part: int = 0
    units: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)
    read_units: bool = True

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Example":
        """Of a row of a data set; everything but the ids and labels may be missing, other columns are not read."""
        pairs = tuple(SpanPair(**pair) for pair in row.get("span_pairs") or ())
        optional = ("spans", "answer", "hidden", "units", "read_units", "part")
        rest = {key: row[key] for key in optional if row.get(key) is not None}
        return cls(row["input_ids"], row["labels"], pairs, **rest)

    def to_row(self) -> dict[str, Any]:
        """Plain values of every field (`asdict` would copy every token)."""
        return {**vars(self), "span_pairs": [dict(vars(pair)) for pair in self.span_pairs]}


def as_dataset(examples: Sequence[Example], span_pairs: bool, spans: bool, grains: Sequence[str] = ()) -> Any:
    """A `datasets.Dataset` with a row for each example, with those columns that something reads."""
    from datasets import Dataset, Features, List, Value

    ids, one = List(Value("int64")), Value("int64")
    columns: dict[str, Any] = {"input_ids": ids, "labels": ids}
    if span_pairs:
        pair = {"source_last": one, "target_ids": ids, "isolated_source": ids, "before_target": one}
        columns["span_pairs"] = List({**pair, "target_positions": ids, "isolated_target": ids})
    if spans:
        columns |= {"spans": List(ids), "answer": ids}
    if grains:
        columns["units"] = {grain: List(ids) for grain in grains}
    rows = [{key: value for key, value in example.to_row().items() if key in columns} for example in examples]
    return Dataset.from_list(rows, features=Features(columns))
