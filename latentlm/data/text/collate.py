"""Encoded documents to a batch: ids, labels, segments, and where each pair of spans is found in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

from latentlm.data.text.encode import SETS


@dataclass(frozen=True)
class _Pair:
    """A span that is read, in which segment and at which token of it, and what the other one is.

    Attributes:
        other: ids of the other span.
        before: token of the same segment after which the other span begins, or -1.
        at: tokens of the segment after which those of the other span are due, whatever stands there.
        other_segment: the segment in which the other one stands alone, if it does.
    """

    segment: int
    end: int
    other: list[int]
    before: int = -1
    at: Sequence[int] = ()
    other_segment: int | None = None


@dataclass
class _Row:
    """Segments one behind the other, and the pairs whose source is read in this row."""

    segments: list[tuple[list[int], list[int]]] = field(default_factory=list)
    pairs: list[_Pair] = field(default_factory=list)
    hidden: list[tuple[int, list[int]]] = field(default_factory=list)  # in which segment, and what from where

    def __len__(self) -> int:
        return sum(len(ids) for ids, _ in self.segments)

    def extend(self, other: "_Row") -> None:
        before = len(self.segments)
        self.segments += other.segments
        self.hidden += [(segment + before, part) for segment, part in other.hidden]
        for pair in other.pairs:
            moved = None if pair.other_segment is None else pair.other_segment + before
            self.pairs.append(replace(pair, segment=pair.segment + before, other_segment=moved))

    def apart(self) -> "list[_Row]":
        """Every segment in a row of its own."""
        rows = [_Row([segment]) for segment in self.segments]
        for segment, part in self.hidden:
            rows[segment].hidden.append((0, part))
        for pair in self.pairs:
            rows[pair.segment].pairs.append(replace(pair, segment=0))
        return rows


@dataclass(frozen=True)
class Collator:
    """Batch encoded documents; a source span that must not see its partner becomes a segment of its own.

    ``packed``: a row holds one document and its lone spans, or with `row_length` as many documents as fit (first fit);
    `position_ids` restart at every segment and no mask is given, so that attention is derived from the positions. The
    padding is one more segment. ``flat``: everything in one row without padding, the only packing that flash attention
    tells apart. ``rows``: every document and every lone span is a row with an `attention_mask`, for models that cannot
    keep packed segments apart.

    Shapes:    input_ids, labels, position_ids | attention_mask, latent.segments: [b t]; latent.source_last [b g 1];
               latent.target_ids [b g n]; latent.target_last [b g 1], where the other span ends that stands alone;
               latent.before_target [b g 1], after which the other span begins in the same text (-1 if it is earlier);
               latent.target_positions [b g n], after which each token of it is due, in the same text or behind a lone
               span. Pair g of a row is the same in all; -1 pads, and there is always one g. latent.hidden [b n 3], if a
               document lists something ``hidden``: tokens first to stop - 1 are not seen from position since on.
    Checked:   tests/data/text/test_text_collate.py - every span end, conservation of tokens, rows == packed, padding
               is inert.

    Args:
        pad_id: id in the padding; its label is -100 and its segment -1.
        sets: named sets to emit; without any, lone spans are left out.
        layout: see above.
        row_length: tokens in a packed row.
    """

    pad_id: int
    sets: tuple[str, ...] = ()
    layout: Literal["rows", "packed", "flat"] = "packed"
    row_length: int | None = None

    def __post_init__(self) -> None:
        if unknown := set(self.sets) - set(SETS):
            raise ValueError(f"sets: unknown {sorted(unknown)}; choose from {', '.join(SETS)}")
        if self.layout not in ("rows", "packed", "flat"):
            raise ValueError(f"layout: {self.layout!r}; choose rows, packed or flat")
        if self.row_length is not None and (self.layout != "packed" or self.row_length < 2):
            raise ValueError(f"row_length: {self.row_length} with layout {self.layout!r}; needs packed and 2 or more")
        if self.layout == "rows" and "target_last" in self.sets:
            raise ValueError(
                "layout: rows keeps the spans of a pair apart, but target_last needs both in a row; use packed"
            )

    def __call__(self, examples: Sequence[dict]) -> dict:
        """Batch of the examples; its number of rows may differ from theirs."""
        assert examples
        rows: list[_Row] = []
        for unit in map(self._unit, examples):
            if self.layout == "rows":
                rows += unit.apart()
            else:
                self._place(unit, rows)
        return self._batch(rows)

    def length(self, example: dict) -> int:
        """Tokens of a document with its lone spans, which a packed row must hold."""
        return len(self._unit(example))

    def _unit(self, example: dict) -> _Row:
        unit = _Row([(list(example["input_ids"]), list(example["labels"]))])
        unit.hidden = [(0, part) for part in example.get("hidden", ())]
        alone: dict[tuple[int, ...], int] = {}  # a span with several partners is read once

        def segment(ids: list[int]) -> int:
            if tuple(ids) not in alone:
                alone[tuple(ids)] = len(unit.segments)
                unit.segments.append((list(ids), [-100] * len(ids)))
            return alone[tuple(ids)]

        for pair in example["pairs"] if self.sets else ():
            in_place, strange, before = pair["end"] >= 0, pair.get("strange", 0), pair.get("before", -1)
            where = (0, pair["end"]) if in_place else (segment(pair["alone"]), len(pair["alone"]) - 1 - strange)
            other = segment(pair["other_alone"]) if "target_last" in self.sets else None
            first, num = (before, len(pair["other"])) if in_place else (where[1], strange + 1)
            at = range(first, first + num) if first >= 0 else ()
            unit.pairs.append(_Pair(*where, list(pair["other"]), before, at, other))
        return unit

    def _place(self, unit: _Row, rows: list[_Row]) -> None:
        if self.layout == "flat" and rows:
            rows[0].extend(unit)
            return
        if self.row_length is None:
            rows.append(unit)
            return
        if len(unit) > self.row_length:
            raise ValueError(
                f"row_length: {self.row_length} < {len(unit)} tokens of a document with its lone spans; "
                f"raise it or lower max_length"
            )
        for row in rows:
            if len(row) + len(unit) <= self.row_length:
                row.extend(unit)
                return
        rows.append(unit)

    def _batch(self, rows: list[_Row]) -> dict:
        shape = len(rows), self.row_length or max(map(len, rows))
        input_ids, labels = torch.full(shape, self.pad_id), torch.full(shape, -100)
        positions, segments = torch.zeros(shape, dtype=torch.int64), torch.full(shape, -1)
        ends: list[list[list[int]]] = []
        befores: list[list[list[int]]] = []
        other_ends: list[list[list[int]]] = []
        others_at: list[list[list[int]]] = []
        hidden: list[list[list[int]]] = []
        for r, row in enumerate(rows):
            starts = [0, *accumulate(len(ids) for ids, _ in row.segments)]
            for s, (ids, targets) in enumerate(row.segments):
                here = slice(starts[s], starts[s + 1])
                input_ids[r, here], labels[r, here] = torch.tensor(ids), torch.tensor(targets)
                positions[r, here], segments[r, here] = torch.arange(len(ids)), s
            positions[r, starts[-1] :] = torch.arange(shape[1] - starts[-1])
            ends.append([[starts[pair.segment] + pair.end] for pair in row.pairs])
            befores.append([[starts[p.segment] + p.before if p.before >= 0 else -1] for p in row.pairs])
            other_ends.append([[starts[p.other_segment + 1] - 1] for p in row.pairs if p.other_segment is not None])
            others_at.append(
                [[starts[p.segment] + k for k in p.at] + [-1] * (len(p.other) - len(p.at)) for p in row.pairs]
            )
            hidden.append([[starts[segment] + place for place in part] for segment, part in row.hidden])
        batch = {"input_ids": input_ids, "labels": labels}
        if self.layout == "rows":
            batch["attention_mask"] = (segments >= 0).long()
        else:
            batch["position_ids"] = positions
        sets = {
            "source_last": _ragged(ends),
            "target_ids": _ragged([[pair.other for pair in row.pairs] for row in rows]),
            "target_last": _ragged(other_ends),
            "before_target": _ragged(befores),
            "target_positions": _ragged(others_at),
        }
        latent = {"segments": segments, **{name: sets[name] for name in self.sets}}
        return {**batch, "latent": latent | ({"hidden": _ragged(hidden)} if any(hidden) else {})}


def _ragged(rows: list[list[list[int]]]) -> Tensor:
    num_groups = max([len(groups) for groups in rows] + [1])
    num_ids = max([len(ids) for groups in rows for ids in groups] + [1])
    out = torch.full((len(rows), num_groups, num_ids), -1)
    for r, groups in enumerate(rows):
        for g, ids in enumerate(groups):
            out[r, g, : len(ids)] = torch.tensor(ids)
    return out
