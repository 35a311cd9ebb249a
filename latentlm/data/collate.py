"""Encoded documents to a batch: ids, labels, segments, and where each pair of spans is found in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from latentlm.data.encode import SETS


@dataclass
class _Row:
    """Segments one behind the other, and the pairs whose source is read in this row."""

    segments: list[tuple[list[int], list[int]]] = field(default_factory=list)
    pairs: list[tuple[int, list[int]]] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(ids) for ids, _ in self.segments)

    def extend(self, other: "_Row") -> None:
        start = len(self)
        self.segments += other.segments
        self.pairs += [(start + end, ids) for end, ids in other.pairs]


@dataclass(frozen=True)
class Collator:
    """Batch encoded documents; a source span that must not see its partner becomes a segment of its own.

    ``packed``: a row holds one document and its lone spans, or with `row_length` as many documents as fit (first fit);
    `position_ids` restart at every segment and no mask is given, so that attention is derived from the positions. The
    padding is one more segment. ``flat``: everything in one row without padding, the only packing that flash attention
    tells apart. ``rows``: every document and every lone span is a row with an `attention_mask`, for models that cannot
    keep packed segments apart.

    Shapes:    input_ids, labels, position_ids | attention_mask, latent.segments: [b t]; latent.span_end [b g 1];
               latent.other_ids [b g n]. Pair g of a row is the same in both; -1 pads both, and there is always one g.
    Checked:   tests/test_data_collate.py - every span end, conservation of tokens, rows == packed, padding is inert.

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

    def __call__(self, examples: Sequence[dict]) -> dict:
        """Batch of the examples; its number of rows may differ from theirs."""
        assert examples
        units = [self._unit(example) for example in examples]
        if self.layout == "rows":
            rows = [document for document, _ in units] + [row for _, alone in units for row in alone]
        else:
            rows = []
            for document, alone in units:
                for row in alone:
                    document.extend(row)
                self._place(document, rows)
        return self._batch(rows)

    def length(self, example: dict) -> int:
        """Tokens of a document with its lone spans, which a packed row must hold."""
        document, alone = self._unit(example)
        return len(document) + sum(map(len, alone))

    def _unit(self, example: dict) -> tuple[_Row, list[_Row]]:
        document = _Row([(list(example["input_ids"]), list(example["labels"]))])
        alone: dict[tuple[int, ...], _Row] = {}  # a span with several partners is read once
        for pair in example["pairs"] if self.sets else ():
            if pair["end"] >= 0:
                document.pairs.append((pair["end"], list(pair["other"])))
            else:
                ids = list(pair["alone"])
                row = alone.setdefault(tuple(ids), _Row([(ids, [-100] * len(ids))]))
                row.pairs.append((len(ids) - 1, list(pair["other"])))
        return document, list(alone.values())

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
        for r, row in enumerate(rows):
            start = 0
            for s, (ids, targets) in enumerate(row.segments):
                here = slice(start, start + len(ids))
                input_ids[r, here], labels[r, here] = torch.tensor(ids), torch.tensor(targets)
                positions[r, here], segments[r, here] = torch.arange(len(ids)), s
                start += len(ids)
            positions[r, start:] = torch.arange(shape[1] - start)
        batch = {"input_ids": input_ids, "labels": labels}
        if self.layout == "rows":
            batch["attention_mask"] = (segments >= 0).long()
        else:
            batch["position_ids"] = positions
        sets = {
            "span_end": _ragged([[[end] for end, _ in row.pairs] for row in rows]),
            "other_ids": _ragged([[other for _, other in row.pairs] for row in rows]),
        }
        return {**batch, "latent": {"segments": segments, **{name: sets[name] for name in self.sets}}}


def _ragged(rows: list[list[list[int]]]) -> Tensor:
    num_groups = max([len(groups) for groups in rows] + [1])
    num_ids = max([len(ids) for groups in rows for ids in groups] + [1])
    out = torch.full((len(rows), num_groups, num_ids), -1)
    for r, groups in enumerate(rows):
        for g, ids in enumerate(groups):
            out[r, g, : len(ids)] = torch.tensor(ids)
    return out
