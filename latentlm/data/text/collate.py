"""Encoded documents to a batch: ids, labels, segments, and where each pair of spans is in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, repeat
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from latentlm.components.units import UnitsAlone
from latentlm.data.text.encode import SETS
from latentlm.data.text.examples import Example, SpanPair
from latentlm.types import unread_key

Packing = Literal["packed", "padding_free", "none"]


@dataclass(frozen=True)
class _PlacedPair:
    """A pair, the segment of its row in which the source is read, and that of the isolated target if there is one."""

    pair: SpanPair
    segment: int
    target_segment: int | None = None


@dataclass(frozen=True)
class _PlacedUnit:
    """Tokens of a segment that are a unit, and those of the segment in which it is read alone, if it is."""

    tokens: tuple[int, int, int]  # segment, first, stop
    role: int
    alone: tuple[int, int, int] | None = None

    def moved(self, by: int) -> "_PlacedUnit":
        segment, first, stop = self.tokens
        alone = None if self.alone is None else (self.alone[0] + by, *self.alone[1:])
        return _PlacedUnit((segment + by, first, stop), self.role, alone)

    def put(self, document: int, behind: int) -> "_PlacedUnit":
        """In a row where its document has that number, and the segments behind it are moved by so many."""
        alone = None if self.alone is None else (self.alone[0] + behind, *self.alone[1:])
        return _PlacedUnit((document, *self.tokens[1:]), self.role, alone)


@dataclass
class _Row:
    """Sequences one after the other, and what is said of them: pairs, hidden tokens, units, predictor tokens."""

    segments: list[tuple[Sequence[int], Sequence[int]]] = field(default_factory=list)  # ids, labels
    pairs: list[_PlacedPair] = field(default_factory=list)
    hidden: list[tuple[int, Sequence[int]]] = field(default_factory=list)  # segment, (first, stop, since)
    parts: list[int] = field(default_factory=list)  # of a mixture, for each segment
    units: dict[str, list[_PlacedUnit]] = field(default_factory=dict)
    predictors: list[tuple[int, int, int]] = field(default_factory=list)  # segment, first, stop

    def __len__(self) -> int:
        return sum(len(ids) for ids, _ in self.segments)

    def extend(self, other: "_Row") -> None:
        before = len(self.segments)
        self.segments += other.segments
        self.parts += other.parts
        self.hidden += [(segment + before, part) for segment, part in other.hidden]
        for placed in other.pairs:
            target = None if placed.target_segment is None else placed.target_segment + before
            self.pairs.append(_PlacedPair(placed.pair, placed.segment + before, target))
        for grain, units in other.units.items():
            self.units.setdefault(grain, []).extend(unit.moved(before) for unit in units)
        self.predictors += [(segment + before, first, stop) for segment, first, stop in other.predictors]

    def split(self) -> "list[_Row]":
        """Every segment in its own row."""
        rows = [_Row([segment], parts=[part]) for segment, part in zip(self.segments, self.parts, strict=True)]
        for segment, part in self.hidden:
            rows[segment].hidden.append((0, part))
        for placed in self.pairs:
            rows[placed.segment].pairs.append(_PlacedPair(placed.pair, 0))
        for grain, units in self.units.items():  # none is read alone: refused
            rows[0].units[grain] = units
        return rows

    def starts(self) -> list[int]:
        """Where each segment begins, and where the last one ends."""
        return [0, *accumulate(len(ids) for ids, _ in self.segments)]


@dataclass(frozen=True)
class Collator:
    """Batch encoded documents; an isolated source or target is a segment of its own.

    ``packed``: a row holds one document and its isolated spans, or with `row_length` as many documents as fit (first
    fit); `position_ids` restart at every segment and no mask is given, so that attention is derived from the positions.
    The padding is one more segment. ``padding_free``: everything in one row without padding, the only packing that
    flash attention keeps apart. ``none``: every document and every isolated span is a row with an `attention_mask`, for
    models that cannot keep packed segments apart.

    Shapes:    input_ids, labels, position_ids | attention_mask, latent.segments: [b t]; latent.source_last [b g 1];
               latent.target_ids [b g n]; latent.target_last [b g 1], where the isolated target ends;
               latent.before_target [b g 1], the token before the target in the same document (-1 if it is earlier);
               latent.target_positions [b g n], after which each token of it is due, in the document or after an
               isolated source. Pair g of a row is the same in all; -1 pads, and there is always one g.
               latent.units/GRAIN, latent.alone/GRAIN [b t] and latent.roles/GRAIN [b u], see components/units.py;
               latent.predictor_tokens [b t], the number of the trained token that stands at a position, -1 elsewhere;
               latent.hidden [b n 3], if an example hides something: tokens first to stop - 1 are not seen from position
               since on; latent.unread/TERM [b t], of each term that does not read some part of a mixture.
    Checked:   tests/data/text/test_text_collate.py - every source end, conservation of tokens, none == packed, padding
               is inert.

    Args:
        pad_id: id in the padding; its label is -100 and its segment -1.
        sets: index sets to emit; without any, isolated spans are left out.
        packing: see above.
        row_length: tokens in a packed row.
        unread: terms that do not read a part of a mixture, by its number.
        grains: units to emit.
        alone: which of them are also read alone, each as a segment of its own behind its document, whose next tokens
            are not labelled.
        headers: tokens in front of a turn that is read alone, by its role.
        bos: tokens in front of another unit that is read alone, where its document begins with them.
    """

    pad_id: int
    sets: tuple[str, ...] = ()
    packing: Packing = "packed"
    row_length: int | None = None
    unread: Mapping[int, Sequence[str]] = field(default_factory=dict)
    grains: tuple[str, ...] = ()
    alone: tuple[UnitsAlone, ...] = ()
    headers: Mapping[int, Sequence[int]] = field(default_factory=dict)
    bos: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if unknown := set(self.sets) - set(SETS):
            raise ValueError(f"sets: unknown {sorted(unknown)}; choose from {', '.join(SETS)}")
        if self.packing not in ("packed", "padding_free", "none"):
            raise ValueError(f"packing: {self.packing!r}; choose packed, padding_free or none")
        if self.row_length is not None and (self.packing != "packed" or self.row_length < 2):
            raise ValueError(f"row_length: {self.row_length} with packing {self.packing!r}; needs packed and 2 or more")
        if self.packing == "none" and self.alone:
            raise ValueError(
                f"packing: none reads every sequence in a row of its own, and units '{self.alone[0].grain}' are to be "
                "read alone beside their document; use packed"
            )
        if self.packing == "none" and "target_last" in self.sets:
            raise ValueError(
                "packing: none puts source and target in different rows, target_last needs one; use packed"
            )

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Batch of rows of a data set (`Example.to_row`); its number of rows may differ from theirs."""
        assert examples
        rows: list[_Row] = []
        for example in map(Example.from_row, examples):
            row = self._row(example)
            if self.packing == "none":
                rows += row.split()
            else:
                self._add(row, rows)
        return self._batch(rows)

    def rows(self, rows: Sequence[Sequence[Example]]) -> dict[str, Any]:
        """Batch of given rows: these documents in this order, and behind them their units that are read alone."""
        made = []
        for examples in rows:
            row, units = _Row(), _Row()
            for example in examples:
                new = _Row([(example.input_ids, example.labels)])
                row.segments += new.segments
            for number, example in enumerate(examples):
                each = self._row(example)
                behind = len(row.segments) + len(units.segments) - 1
                units.segments += each.segments[1:]
                for grain, placed in each.units.items():
                    row.units.setdefault(grain, []).extend(unit.put(number, behind) for unit in placed)
                row.predictors += [(segment + behind, first, stop) for segment, first, stop in each.predictors]
            row.segments += units.segments
            made.append(row)
        return self._batch(made)

    def length(self, example: Mapping[str, Any]) -> int:
        """Tokens of a document with its isolated spans, which a packed row must hold."""
        return len(self._row(Example.from_row(example)))

    def _row(self, example: Example) -> _Row:
        row = _Row([(example.input_ids, example.labels)], hidden=[(0, part) for part in example.hidden])
        isolated: dict[tuple[int, ...], int] = {}  # a span with several partners is read once

        def segment(ids: Sequence[int]) -> int:
            if tuple(ids) not in isolated:
                isolated[tuple(ids)] = len(row.segments)
                row.segments.append((ids, [-100] * len(ids)))
            return isolated[tuple(ids)]

        for pair in example.span_pairs if self.sets else ():
            source = segment(pair.isolated_source) if pair.isolated_source else 0
            target = segment(pair.isolated_target) if "target_last" in self.sets else None
            row.pairs.append(_PlacedPair(pair, source, target))
        self._add_units(row, example)
        row.parts = [example.part] * len(row.segments)
        return row

    def _add_units(self, row: _Row, example: Example) -> None:
        alone = {each.grain: each for each in self.alone} if example.read_units else {}
        copies: dict[tuple[int, ...], tuple[set[str], int]] = {}  # one for a paragraph of a single sentence
        for grain in self.grains:
            row.units[grain] = []
            for number, (first, stop, role) in enumerate(example.units.get(grain, ())):
                tokens, wanted, copy = (0, first, stop), alone.get(grain), None
                if wanted is not None and wanted.has(number, role):
                    copy = self._copy(row, copies, grain, wanted, example.input_ids, tokens, role)
                row.units[grain].append(_PlacedUnit(tokens, role, copy))

    def _copy(
        self,
        row: _Row,
        copies: dict[tuple[int, ...], tuple[set[str], int]],
        grain: str,
        wanted: UnitsAlone,
        ids: Sequence[int],
        tokens: tuple[int, int, int],
        role: int,
    ) -> tuple[int, int, int]:
        """Segment, first and stop of a unit that is read alone: a new segment, or that of the same tokens."""
        _, first, stop = tokens
        begins = tuple(ids[: len(self.bos)]) == self.bos
        before = list(self.headers.get(role, ())) if grain == "turn" else list(self.bos) if begins else []
        read = [*before, *ids[first:stop]]
        key = (wanted.predictor_tokens, *read)
        used, segment = copies.get(key, (set(), -1))
        if segment < 0 or grain in used:
            segment, used = len(row.segments), set()
            copies[key] = used, segment
            more = wanted.predictor_tokens
            row.segments.append(([*read, *[self.pad_id] * more], [-100] * (len(read) + more)))
            row.predictors += [(segment, len(read), len(read) + more)] if more else []
        used.add(grain)
        return segment, len(before), len(read)

    def _add(self, new: _Row, rows: list[_Row]) -> None:
        if self.packing == "padding_free" and rows:
            rows[0].extend(new)
            return
        if self.row_length is None:
            rows.append(new)
            return
        if len(new) > self.row_length:
            raise ValueError(
                f"row_length: {self.row_length} < {len(new)} tokens of a document with its isolated spans; "
                f"raise it or lower max_length"
            )
        for row in rows:
            if len(row) + len(new) <= self.row_length:
                row.extend(new)
                return
        rows.append(new)

    def _batch(self, rows: list[_Row]) -> dict[str, Any]:
        batch, segments = self._tokens(rows)
        sets = {
            "source_last": [[[start[p.segment] + p.pair.source_last] for p in row.pairs] for row, start in _each(rows)],
            "target_ids": [[p.pair.target_ids for p in row.pairs] for row in rows],
            "target_last": [
                [[start[p.target_segment + 1] - 1] for p in row.pairs if p.target_segment is not None]
                for row, start in _each(rows)
            ],
            "before_target": [
                [[start[p.segment] + p.pair.before_target if p.pair.before_target >= 0 else -1] for p in row.pairs]
                for row, start in _each(rows)
            ],
            "target_positions": [
                [_shifted(p.pair.target_positions, start[p.segment], len(p.pair.target_ids)) for p in row.pairs]
                for row, start in _each(rows)
            ],
        }
        latent = {"segments": segments, **{name: _ragged(sets[name]) for name in self.sets}}
        latent |= self._unread(rows, segments)
        latent |= self._units(rows, segments)
        hidden = [[[start[segment] + at for at in part] for segment, part in row.hidden] for row, start in _each(rows)]
        return {**batch, "latent": latent | ({"hidden": _ragged(hidden)} if any(hidden) else {})}

    def _unread(self, rows: list[_Row], segments: Tensor) -> dict[str, Tensor]:
        """Where each term does not read."""
        found = {
            unread_key(name): torch.zeros_like(segments, dtype=torch.bool)
            for names in self.unread.values()
            for name in names
        }
        for r, (row, starts) in enumerate(_each(rows)) if found else ():
            for segment, part in enumerate(row.parts):
                for name in self.unread.get(part, ()):
                    found[unread_key(name)][r, starts[segment] : starts[segment + 1]] = True
        return found

    def _units(self, rows: list[_Row], segments: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        read = {each.grain for each in self.alone}
        for grain in self.grains:
            # in numpy, where a small slice costs a tenth of one in torch
            units, alone = np.full(segments.shape, -1), np.full(segments.shape, -1)
            most = max([len(row.units.get(grain, ())) for row in rows] + [1])
            roles = np.full((len(rows), most), -1)
            for r, (row, starts) in enumerate(_each(rows)):
                for number, unit in enumerate(row.units.get(grain, ())):
                    for table, place in ((units, unit.tokens), (alone, unit.alone)):
                        if place is not None:
                            table[r, starts[place[0]] + place[1] : starts[place[0]] + place[2]] = number
                    roles[r, number] = unit.role
            found |= {f"units/{grain}": torch.from_numpy(units), f"roles/{grain}": torch.from_numpy(roles)}
            found |= {f"alone/{grain}": torch.from_numpy(alone)} if grain in read else {}
        if any(row.predictors for row in rows) or any(each.predictor_tokens for each in self.alone):
            table = torch.full_like(segments, -1)
            for r, (row, starts) in enumerate(_each(rows)):
                for segment, first, stop in row.predictors:
                    table[r, starts[segment] + first : starts[segment] + stop] = torch.arange(stop - first)
            found["predictor_tokens"] = table
        return found

    def _tokens(self, rows: list[_Row]) -> tuple[dict[str, Tensor], Tensor]:
        """What the model reads, and the segments."""
        shape = len(rows), self.row_length or max(map(len, rows))
        input_ids, labels = torch.full(shape, self.pad_id), torch.full(shape, -100)
        positions, segments = torch.zeros(shape, dtype=torch.int64), torch.full(shape, -1)
        for r, (row, starts) in enumerate(_each(rows)):
            end = starts[-1]
            # a row at once: a tensor for each segment would cost more than all the rest
            for table, values in (
                (input_ids, chain.from_iterable(ids for ids, _ in row.segments)),
                (labels, chain.from_iterable(targets for _, targets in row.segments)),
                (positions, chain.from_iterable(range(len(ids)) for ids, _ in row.segments)),
                (segments, chain.from_iterable(repeat(s, len(ids)) for s, (ids, _) in enumerate(row.segments))),
            ):
                table[r, :end] = torch.tensor(list(values))
            positions[r, end:] = torch.arange(shape[1] - end)
        batch = {"input_ids": input_ids, "labels": labels}
        if self.packing == "none":
            return {**batch, "attention_mask": (segments >= 0).long()}, segments
        return {**batch, "position_ids": positions}, segments


def _each(rows: list[_Row]) -> list[tuple[_Row, list[int]]]:
    return [(row, row.starts()) for row in rows]


def _shifted(positions: Sequence[int], start: int, length: int) -> list[int]:
    return [start + k for k in positions] + [-1] * (length - len(positions))


def _ragged(rows: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    num_groups = max([len(groups) for groups in rows] + [1])
    num_ids = max([len(ids) for groups in rows for ids in groups] + [1])
    out = torch.full((len(rows), num_groups, num_ids), -1)
    for r, groups in enumerate(rows):
        for g, ids in enumerate(groups):
            out[r, g, : len(ids)] = torch.tensor(ids)
    return out
