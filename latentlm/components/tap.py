"""Taps: latents at a depth and at positions of a view, pooled, and through a head if one is named."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from latentlm.components.positions import At, Now, flat, inside, seen
from latentlm.types import ForwardView, Latents


class Block(int):
    """A depth as a number of blocks, 0..num_layers. Every written depth becomes one when the network is known."""


Depth = int | float | str
"""A depth as written in a recipe.

A number is a share of the network (``1/4``, ``0.25``): 0 is the input of the first block, 1 the top, after the last
block. ``block 3`` is after the third block; a whole number alone is never one. States are the raw residual stream.
"""


def resolve_depth(depth: Depth, num_layers: int) -> Block:
    """Depth as a number of blocks, 0..num_layers.

    >>> [int(resolve_depth(d, 30)) for d in (0, "1/5", 0.5, 1, "block 12", "block 1")]
    [0, 6, 15, 30, 12, 1]
    """
    fraction, block = read_depth(depth)
    if block is None:
        # at least one block: a small fraction of a shallow model must not silently become the embedding
        return Block(max(1, math.floor(fraction * num_layers + 0.5)) if fraction > 0 else 0)
    if not 0 <= block <= num_layers:
        raise ValueError(
            f"depth {depth}: the model has {num_layers} blocks; use 0..{num_layers} or a fraction like 1/2"
        )
    return Block(block)


def read_depth(depth: Depth) -> tuple[float, int | None]:
    """A depth as a fraction or a block number, before the network is known."""
    if isinstance(depth, Block):
        return 0.0, depth
    hint = f"depth {depth!r}: use a fraction from 0 to 1 (1/4, 0.5, 1 is the top), or 'block 1' for a block"
    if isinstance(depth, str):
        numerator, slash, denominator = depth.partition("/")
        try:
            if slash:
                value = float(numerator) / float(denominator)
                if value > 1:
                    raise ValueError
            elif depth.startswith("block "):
                return 0.0, int(depth.removeprefix("block "))
            else:
                value = float(depth)
        except (ValueError, ZeroDivisionError):
            raise ValueError(hint) from None
    else:
        value = depth
    if 0 <= value <= 1:
        return float(value), None
    if value > 1 and float(value).is_integer():
        raise ValueError(f"depth {depth!r}: a number is a share of the network, 0 to 1; write 'block {int(value)}'")
    raise ValueError(hint)


@dataclass(frozen=True)
class Widths:
    """Widths that predictors are built for.

    Args:
        hidden: of the network's states.
        embedding: of its input embeddings.
        heads: of the shared heads, by name.
        pixels: input values of a position, where the network reads pixels.
    """

    hidden: int
    embedding: int
    heads: Mapping[str, int]
    pixels: int | None = None


@dataclass(frozen=True)
class Tap:
    """Latents of one view.

    Args:
        depth: share of the network: ``1/4`` or ``0.25`` is after a quarter of the blocks, 0 the input of the first
            block, 1 the top; ``block 3`` is after the third block. Of several depths each state is layer-normed (no
            weights), then `fuse` makes one of them.
        norm: ``final`` applies the network's own final norm, ``none`` takes the raw residual stream.
        at: positions, or the name of an index set of the data.
        pool: ``mean`` or ``last`` makes one vector of an anchor's positions.
        head: name of a head in the objective's `heads`, applied last.
        fuse: how several depths are combined: averaged (data2vec) or concatenated (V-JEPA 2.1).
        of: whose states: the ``network``'s, or those of its EMA teacher (``ema``). The latter have no gradient, so that
            only the heads and predictors on them are trained (CAPI's clusters).
        into: ``head`` keeps the gradient in the head and the predictor: of a source, so that the network learns nothing
            from this term (a probe that is trained with it; SOLO's and Megatron's isolated heads).
    """

    depth: Depth | tuple[Depth, ...]
    norm: Literal["none", "final"] = "none"
    at: At = Now()
    pool: Literal["none", "mean", "last"] = "none"
    head: str | None = None
    fuse: Literal["mean", "concat"] = "mean"
    of: Literal["network", "ema"] = "network"
    into: Literal["network", "head"] = "network"

    def __post_init__(self):
        if not self.depths:
            raise ValueError("depth: names no depth; give one or several")
        for depth in self.depths:
            read_depth(depth)
        if len(self.depths) > 1 and self.norm == "final":
            raise ValueError("norm: several depths are normed one by one; use norm: none")
        if len(self.depths) > 1 and self.fuse == "concat" and self.head is not None:
            raise ValueError("head: is as wide as one state; use fuse: mean, or no head")

    @property
    def depths(self) -> tuple[Depth, ...]:
        """All depths, as written."""
        return self.depth if isinstance(self.depth, tuple) else (self.depth,)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All depths as numbers of blocks; needs a resolved tap."""
        blocks = tuple(depth for depth in self.depths if isinstance(depth, Block))
        if len(blocks) < len(self.depths):
            raise ValueError(f"depth {self.depths[0]!r}: of which network? Use Objective.resolve or Tap.resolve first")
        return blocks

    def resolve(self, num_layers: int) -> "Tap":
        """The same tap for a network of `num_layers` blocks, every depth a `Block`."""
        blocks = tuple(resolve_depth(depth, num_layers) for depth in self.depths)
        return replace(self, depth=blocks if isinstance(self.depth, tuple) else blocks[0])

    def dim(self, widths: Widths) -> int:
        """Width of the latents."""
        if self.head is not None:
            return widths.heads[self.head]
        return widths.hidden * (len(self.depths) if self.fuse == "concat" else 1)

    def mask(self, view: ForwardView) -> Bool[Tensor, "a n"]:
        """Anchors and positions that exist; needs no states."""
        mask = seen(self.at, view).flatten(0, 1) >= 0
        return mask if self.pool == "none" else mask.any(1, keepdim=True)

    def read(self, view: ForwardView, keep: Bool[Tensor, " a"], heads: Mapping[str, Callable]) -> Latents:
        """Latents of the anchors in `keep`. Only these are gathered, so heads run on nothing else."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.into == "network"):
            latents = self._read(view, keep)
        if self.head is None:
            return latents
        return replace(latents, values=_through_head(heads[self.head], latents.values, latents.mask))

    def _read(self, view: ForwardView, keep: Bool[Tensor, " a"]) -> Latents:
        """What is read of the network, before any head."""
        length = view.segments.shape[1]
        where = flat(inside(self.at, seen(self.at, view), length), length)[keep]
        mask = where >= 0
        # not state[where]: its backward sorts or walks element by element
        states = [view.states[block].flatten(0, 1) for block in self.blocks]
        found = [state.index_select(0, where.clamp(min=0).flatten()).unflatten(0, where.shape) for state in states]
        values = found[0] if len(found) == 1 else _fused(found, self.fuse)
        if where.shape[1] > 1:  # a kept anchor of one position has that one
            # zeros where there is nothing: a NaN there would come back as 0 * NaN in the gradients of what reads it
            values = values.masked_fill(~mask[..., None], 0)
        if self.norm == "final":
            if view.norm is None:
                raise ValueError("norm: this model has no final norm; use norm: none")
            values = view.norm(values)
        if self.pool != "none":
            values, mask, where = _pool(values, mask, where, self.pool)
        return Latents(values, mask, where)


def _fused(states: list[Tensor], how: str) -> Tensor:
    normed = [F.layer_norm(state.float(), state.shape[-1:]).to(state.dtype) for state in states]
    return torch.cat(normed, -1) if how == "concat" else torch.stack(normed).mean(0)


def _through_head(head: Callable, values: Tensor, mask: Tensor) -> Tensor:
    if mask.shape[1] == 1:  # a kept anchor of one position has that one
        return head(values)
    # selected first: a head with statistics over its rows must not count places where there is nothing
    projected = head(values[mask])
    return projected.new_zeros(*mask.shape, projected.shape[-1]).masked_scatter(mask[..., None], projected)


def _pool(values: Tensor, mask: Tensor, where: Tensor, pool: str) -> tuple[Tensor, Tensor, Tensor]:
    last = (mask * range_like(mask)).argmax(1, keepdim=True)
    if pool == "last":
        pooled = values.gather(1, last[..., None].expand(-1, -1, values.shape[-1]))
    else:
        # again: the norm may have moved the zeros
        pooled = values.masked_fill(~mask[..., None], 0).sum(1, keepdim=True)
        pooled = pooled / mask.sum(1)[:, None, None].clamp(min=1).to(values.dtype)
    return pooled, mask.any(1, keepdim=True), where.gather(1, last)


def range_like(mask: Tensor) -> Tensor:
    """1, 2, ..., n along the last axis."""
    return mask.new_ones(mask.shape, dtype=torch.long).cumsum(-1)
