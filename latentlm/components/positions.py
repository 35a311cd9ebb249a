"""Where to look: makers of index tensors ``[b g n]`` into the ``t`` positions of a view, -1 where there is nothing.

A group ``g`` is one anchor, ``n`` the positions that belong to it, so the next position, the other span and a block of
masked patches are the same shape. Two index sets of equal ``b g`` are paired anchor by anchor.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentlm.components.units import Unit
from latentlm.types import ForwardView


@dataclass(frozen=True)
class Now:
    """Every position of every segment, one anchor each: ``[b t 1]``."""

    def __call__(self, view: ForwardView) -> Int[Tensor, "b t 1"]:
        """Index of each position itself."""
        where = torch.arange(view.segments.shape[1], device=view.segments.device).expand_as(view.segments)
        return torch.where(view.segments >= 0, where, -1)[..., None]


@dataclass(frozen=True)
class Next:
    """The positions `offset`, ..., `offset + horizon - 1` further on in the same segment: ``[b t horizon]``.

    Args:
        offset: how far ahead the first one is; at least 1.
        horizon: how many consecutive positions each anchor has.
    """

    offset: int = 1
    horizon: int = 1

    def __post_init__(self):
        if self.offset < 1 or self.horizon < 1:
            raise ValueError(f"next: offset and horizon must be at least 1, got {self.offset} and {self.horizon}")

    def __call__(self, view: ForwardView) -> Int[Tensor, "b t n"]:
        """Index of the later positions; -1 where they would leave the segment."""
        segments = view.segments
        length = segments.shape[1]
        steps = torch.arange(self.offset, self.offset + self.horizon, device=segments.device)
        where = torch.arange(length, device=segments.device)[:, None] + steps  # t n
        there = segments[:, where.clamp(max=length - 1)]  # b t n
        inside = (where < length) & (there == segments[..., None]) & (segments[..., None] >= 0)
        return torch.where(inside, where, -1)


@dataclass(frozen=True)
class Last:
    """The last position of every segment: ``[b g 1]`` with g the largest number of segments in a row."""

    def __call__(self, view: ForwardView) -> Int[Tensor, "b g 1"]:
        """Index of each segment's last position."""
        segments = view.segments
        groups = max(int(segments.max()) + 1, 1)
        where = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
        last = torch.full((segments.shape[0], groups + 1), -1, device=segments.device)
        slot = torch.where(segments >= 0, segments, groups)  # padding goes to a slot that is cut off
        return last.scatter_reduce(1, slot, where, reduce="amax")[:, :groups, None]


At = Now | Next | Last | Unit | str
"""Where a tap looks. A string that is no kind names an index set that the data brings."""


def index(at: At, view: ForwardView) -> Int[Tensor, "b g n"]:
    """Resolve `at` on a view."""
    if isinstance(at, str):
        if at not in view.sets:
            have = ", ".join(sorted(view.sets)) or "none"
            raise ValueError(f"at: the batch has no set named '{at}' (it has: {have}); use data that gives it")
        found = view.sets[at]
        if found.dim() != 3:
            raise ValueError(f"at: the set '{at}' has shape {list(found.shape)}; it needs [rows, groups, positions]")
        if found.shape[0] != len(view.segments):
            raise ValueError(f"at: the set '{at}' has {found.shape[0]} rows, and the batch {len(view.segments)}")
        return found
    return at(view)


def seen(at: At, view: ForwardView) -> Int[Tensor, "b g n"]:
    """The same without positions that are not read in this view."""
    found = index(at, view)
    if view.unread is None:
        return found
    hidden = view.unread.gather(1, found.clamp(min=0).flatten(1)).view(found.shape)
    return found.masked_fill(hidden, -1)


def check_ids(kind: str, ids: str | Unit) -> None:
    """Refuse single tokens of a unit where the whole unit is meant."""
    if isinstance(ids, Unit) and ids.pick != "all":
        raise ValueError(f"{kind}: ids of a unit are all of its tokens; use pick: all")


def ids_of(ids: str | Unit, view: ForwardView) -> Int[Tensor, "b g n"]:
    """Ids that a set of the data gives, or those of a unit's tokens; -1 pads."""
    if isinstance(ids, str):
        return index(ids, view)
    where = ids(view)
    if view.inputs is None:
        raise ValueError("ids: the tokens of a unit need input_ids, but the model was given inputs_embeds")
    found = view.inputs.gather(1, where.clamp(min=0).flatten(1)).view_as(where)
    return torch.where(where >= 0, found, -1)


def inside(at: At, found: Int[Tensor, "b g n"], length: int) -> Int[Tensor, "b g n"]:
    """The positions of a set, all of them in a row of `length`; nothing waits for the device."""
    if isinstance(at, str) and found.numel():
        line = f"at: the set '{at}' has a position beyond the {length} of a row; positions count from 0 in each row"
        if found.device.type == "cuda":
            torch.ops.aten._assert_async.msg((found < length).all(), line)
        elif int(found.max()) >= length:
            raise ValueError(line)
    return found


def flat(index: Int[Tensor, "b g n"], length: int) -> Int[Tensor, "a n"]:
    """Fold rows and groups into anchors and positions into one axis ``b*t``; -1 stays -1."""
    rows = torch.arange(index.shape[0], device=index.device)[:, None, None] * length
    return torch.where(index >= 0, index + rows, -1).flatten(0, 1)


def nearness(at: At, view: ForwardView) -> Float[Tensor, "b t"]:
    """``1 / sqrt(d)`` of every position, d its distance to the nearest of the positions `at` in the same view.

    Neighbours are at distance 1, and so counts a position of the set itself; 0 where its view has none of them.
    """
    if view.places is None:
        raise ValueError("distance_to: needs positions with coordinates, which this network has not; leave it out")
    places = view.places.float()
    own = (places < 0).all(-1).cumsum(0)  # a view begins with its class token, which has no place
    there = index(at, view).flatten(1)  # b s
    apart = torch.cdist(places[None].expand(len(there), -1, -1), places[there.clamp(min=0)])  # b t s
    apart = torch.where((there >= 0)[:, None] & (own[:, None] == own[there.clamp(min=0)][:, None]), apart, torch.inf)
    return apart.amin(-1).clamp(min=1).rsqrt()
