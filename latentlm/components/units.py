"""Positions of units: sentences, paragraphs, turns, and what is next to, above or inside them.

The collator gives for each grain ``units/GRAIN [b t]``, the number of the unit that each token belongs to (numbers
count up through a row, -1 for none); ``roles/GRAIN [b u]``, the role of each unit; and for units that are read alone
``alone/GRAIN [b t]``, the number of the unit that a token is a copy of. Without roles there are as many units as the
numbers say, which waits for the device once.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from latentlm.types import ForwardView

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Unit:
    """A unit of every anchor: ``[b u n]``, u the units of a row.

    An anchor is a unit of the same grain, or with `parts_of` and `parent_of` one of another grain. Two `Unit` with the
    same anchors are paired one by one, so ``{grain: sentence}`` and ``{grain: sentence, offset: 1, read: alone}`` are
    each sentence and the one after it, read by itself. Units of different documents are never paired.

    Checked:   tests/components/test_unit_positions.py - naive loops over random units, every option.

    Args:
        grain: kind of unit: chunk, line, step, sentence, paragraph, turn, column, span, document, or one of data.units.
        offset: 0 the anchor itself, 1 the next unit, -1 the previous one; with `parts_of` and `parent_of` counted in
            the grain of the coarser one.
        pick: which token of it stands for the unit, or ``all`` of them.
        read: ``in_context``, in its document, or ``alone``, as a sequence of its own that sees nothing else.
        role: only turns of this speaker.
        parts_of: a coarser grain; its units are the anchors, and all units inside one belong to it.
        parent_of: a finer grain; its units are the anchors, and the unit that one lies in belongs to it.
        predictor_tokens: so many trained tokens are read after the unit (LLM-JEPA's [PRED]), and the state at the last
            of them stands for it; needs read alone.
    """

    grain: str
    offset: int = 0
    pick: Literal["last", "first", "all"] = "last"
    read: Literal["in_context", "alone"] = "in_context"
    role: Role | None = None
    parts_of: str | None = None
    parent_of: str | None = None
    predictor_tokens: int = 0

    def __post_init__(self):
        if self.parts_of is not None and self.parent_of is not None:
            raise ValueError("unit: parts_of and parent_of are two ways to choose anchors; give one of them")
        if self.grain in (self.parts_of, self.parent_of):
            raise ValueError(f"unit: a {self.grain} is no part of a {self.grain}; name another grain, or use offset")
        if self.parts_of is not None and self.pick == "all":
            raise ValueError("unit: all tokens of all parts are those of the whole; use pick: last or first")
        if self.predictor_tokens < 0 or (self.predictor_tokens and (self.read != "alone" or self.pick != "last")):
            raise ValueError(
                f"unit: predictor_tokens {self.predictor_tokens} stand behind a unit that is read alone; use 0 or more "
                "with read: alone and pick: last"
            )

    @property
    def anchors(self) -> str:
        """Grain of the anchors."""
        return self.parts_of or self.parent_of or self.grain

    @property
    def grains(self) -> tuple[str, ...]:
        """Grains that have to be found."""
        return (self.grain,) if self.anchors == self.grain else (self.grain, self.anchors)

    def __call__(self, view: ForwardView) -> Int[Tensor, "b u n"]:
        """Index of the positions; -1 where an anchor has no such unit."""
        chosen = self._chosen(view)
        first, last = _ends(view, self.grain, self.read)
        number = chosen.clamp(min=0).flatten(1)
        there = (chosen >= 0) & (last.gather(1, number) >= 0).view_as(chosen)
        if self.role is not None:
            roles = _roles(view, self.grain)
            there &= (roles.gather(1, number) == ROLES.index(self.role)).view_as(chosen)
        if self.pick == "all":
            start, end = (edge.gather(1, number).view_as(chosen) for edge in (first, last))
            longest = int((last - first).max()) + 1 if last.numel() else 1
            where = start + torch.arange(longest, device=start.device)  # b u 1 -> b u n
            return torch.where(there & (where <= end), where, -1)
        edge = first if self.pick == "first" else last + self.predictor_tokens
        return torch.where(there, edge.gather(1, number).view_as(chosen), -1)

    def _chosen(self, view: ForwardView) -> Int[Tensor, "b u n"]:
        """Numbers of the units that belong to each anchor, -1 where there is none."""
        first, _ = _ends(view, self.anchors, "in_context")  # of the anchors
        there = first >= 0
        if self.parent_of is not None:
            above = view.sets[f"units/{self.grain}"].gather(1, first.clamp(min=0))
            moved = torch.where(there & (above >= 0), above + self.offset, -1)
            return _of_same_document(view, first, self.grain, moved)[..., None]
        number = torch.arange(first.shape[1], device=first.device).expand_as(first)
        moved = torch.where(there, number + self.offset, -1)
        moved = _of_same_document(view, first, self.anchors, moved)
        if self.parts_of is None:
            return moved[..., None]
        return _parts(view, self.grain, self.parts_of, moved)


@dataclass(frozen=True)
class UnitsAlone:
    """Which units of a grain have to be read alone.

    Attributes:
        grain: kind of unit.
        roles: turns of these roles, by their place in `ROLES`; None: all units.
        predictor_tokens: places for trained tokens behind each.
        first: units of a document before this one are not needed.
    """

    grain: str
    roles: tuple[int, ...] | None = None
    predictor_tokens: int = 0
    first: int = 0

    def has(self, number: int, role: int) -> bool:
        """Whether the unit with this number in its document is read."""
        return number >= self.first and (self.roles is None or role in self.roles)


def units_alone(units: Iterable[Unit]) -> tuple[UnitsAlone, ...]:
    """What these positions need to be read alone, one entry for each grain."""
    found: dict[str, UnitsAlone] = {}
    for unit in units:
        if unit.read != "alone":
            continue
        roles = None if unit.role is None else (ROLES.index(unit.role),)
        first = max(unit.offset, 0) if unit.anchors == unit.grain else 0
        new = UnitsAlone(unit.grain, roles, unit.predictor_tokens, first)
        old = found.get(unit.grain, new)
        both = None if old.roles is None or roles is None else tuple(sorted({*old.roles, *roles}))
        tokens = max(old.predictor_tokens, new.predictor_tokens)
        found[unit.grain] = UnitsAlone(unit.grain, both, tokens, min(old.first, first))
    return tuple(found.values())


def segments_with_copies(
    segments: Int[Tensor, "b t"], copies: Mapping[str, Tensor], grains: Collection[str]
) -> Bool[Tensor, "b t"]:
    """Positions in a segment that holds a copy, read alone, of a unit of these grains.

    Args:
        segments: of every position.
        copies: by grain, the number of the unit that a position is a copy of.
        grains: which of them count.
    """
    holds = torch.zeros(len(segments), int(segments.max()) + 2, dtype=torch.long, device=segments.device)
    number = segments + 1
    for grain in grains:
        if grain in copies:
            holds.scatter_reduce_(1, number, (copies[grain] >= 0).long(), reduce="amax")
    return holds.gather(1, number) > 0


def _of_same_document(view: ForwardView, where: Tensor, grain: str, number: Tensor) -> Tensor:
    """The numbers of units that lie in the same document as the positions `where`, else -1."""
    first, _ = _ends(view, grain, "in_context")
    inside = (number >= 0) & (number < first.shape[1])
    start = first.gather(1, torch.where(inside, number, 0)) if first.shape[1] else torch.full_like(number, -1)
    document = view.segments.gather(1, start.clamp(min=0))
    same = inside & (start >= 0) & (document == view.segments.gather(1, where.clamp(min=0)))
    return torch.where(same, number, -1)


def _parts(view: ForwardView, grain: str, whole: str, chosen: Tensor) -> Int[Tensor, "b u n"]:
    """Numbers of the units of `grain` that begin in each chosen unit of `whole`."""
    first, _ = _ends(view, grain, "in_context")
    above = view.sets[f"units/{whole}"].gather(1, first.clamp(min=0))
    above = torch.where(first >= 0, above, -1)  # of each part
    number = torch.arange(first.shape[1], device=first.device).expand_as(first)
    size = _ends(view, whole, "in_context")[0].shape[1]
    slot = torch.where(above >= 0, above, size)  # what lies in none goes to a slot that is cut off
    start = torch.full((len(first), size + 1), first.shape[1], device=first.device)
    start = start.scatter_reduce(1, slot, number, reduce="amin")[:, :size]
    count = torch.zeros(len(first), size + 1, dtype=torch.long, device=first.device)
    count = count.scatter_add(1, slot, torch.ones_like(slot))[:, :size]
    most = max(int(count.max()), 1) if count.numel() else 1
    begin, num = (each.gather(1, chosen.clamp(min=0)) for each in (start, count))
    place = torch.arange(most, device=first.device)
    return torch.where((chosen >= 0)[..., None] & (place < num[..., None]), begin[..., None] + place, -1)


def _ends(view: ForwardView, grain: str, read: str) -> tuple[Int[Tensor, "b u"], Int[Tensor, "b u"]]:
    """First and last position of each unit, -1 where it is not there."""
    return view.cached(("ends", grain, read), lambda: _find_ends(view, grain, read))


def _find_ends(view: ForwardView, grain: str, read: str) -> tuple[Tensor, Tensor]:
    name = f"units/{grain}" if read == "in_context" else f"alone/{grain}"
    for key in (f"units/{grain}", name):
        if key not in view.sets:
            have = sorted(key.removeprefix("units/") for key in view.sets if key.startswith("units/"))
            what = f"no units '{grain}'" if key.startswith("units/") else f"no unit '{grain}' that is read alone"
            raise ValueError(
                f"at: the batch has {what} (grains: {', '.join(have) or 'none'}); train with latentlm train or a "
                "latentlm trainer, or wrap the collator: latentlm.with_units(collator, tokenizer, model)"
            )
    units = view.sets[name]
    if units.shape != view.segments.shape:
        raise ValueError(f"at: '{name}' has shape {list(units.shape)}, and the batch {list(view.segments.shape)}")
    roles = view.sets.get(f"roles/{grain}")
    size = int(view.sets[f"units/{grain}"].max()) + 1 if roles is None else roles.shape[1]
    where = torch.arange(units.shape[1], device=units.device).expand_as(units)
    slot = torch.where(units >= 0, units, size)  # tokens of none go to a slot that is cut off
    empty = torch.full((len(units), size + 1), -1, device=units.device)
    last = empty.scatter_reduce(1, slot, where, reduce="amax")[:, :size]
    first = (empty + units.shape[1] + 1).scatter_reduce(1, slot, where, reduce="amin")[:, :size]
    return torch.where(last >= 0, first, -1), last


def _roles(view: ForwardView, grain: str) -> Int[Tensor, "b u"]:
    if (roles := view.sets.get(f"roles/{grain}")) is None:
        raise ValueError(
            f"at: the batch does not say whose the units '{grain}' are; leave role out, or give roles/{grain}"
        )
    return roles
