"""Masks: which patches of a view the network does not see, and which of those it has to predict, in which blocks."""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from latentlm.data.counter_rng import uniforms

_Range = tuple[float, ...]


class Hide(Protocol):
    """What a mask does; p patches in raster order, on a square grid of `side`."""

    drop: bool

    def __call__(self, keys: np.ndarray, side: int) -> tuple[Bool[Tensor, "b p"], Bool[Tensor, "b g p"]]:
        """Patches that are seen, and those to predict; no patch is both."""
        ...


@dataclass(frozen=True)
class Random:
    """Patches chosen one by one; all that are hidden are predicted, as one block.

    Source:    He et al. 2021 (MAE), arXiv:2111.06377, with `drop`; Zhou et al. 2021 (iBOT), arXiv:2111.07832, with a
               range, probability 0.5 and a mask token. Differs: iBOT hides blocks.
    Checked:   tests/data/images/test_masks.py - counts, every patch equally often, seen and hidden make the whole.

    Args:
        ratio: share of the patches that is hidden, or the least and greatest share.
        probability: share of the images that is masked at all.
        drop: hidden patches do not enter the network; otherwise a mask token stands there.
    """

    ratio: float | _Range = 0.75
    probability: float = 1.0
    drop: bool = True

    def __post_init__(self) -> None:
        _check_range("ratio", _pair(self.ratio), below=True)
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability: {self.probability}; set it above 0 and up to 1")

    def __call__(self, keys: np.ndarray, side: int) -> tuple[Bool[Tensor, "b p"], Bool[Tensor, "b 1 p"]]:
        """Seen and predicted patches of each example."""
        low, high = _pair(self.ratio)
        u = uniforms(keys, "random", 2)
        num = _count("ratio", low + (high - low) * u[:, 0], side**2)
        num = torch.where(u[:, 1] < self.probability, num, 0)
        hidden = _ranks(uniforms(keys, "patches", side**2)) < num[:, None]
        return ~hidden, hidden[:, None]


@dataclass(frozen=True)
class Blocks:
    """Several blocks to predict from one large block around them, without what belongs to any of them.

    Source:    Assran et al. 2023 (I-JEPA), arXiv:2301.08243. Differs: sizes are drawn for each image and each block,
               scale and aspect by numbers of their own; a context is padded, never cut down to the smallest of a batch.
    Checked:   tests/data/images/test_masks.py - sizes, no predicted patch is seen, none is left without a context.

    Args:
        num: blocks to predict.
        scale: least and greatest share of the image in a block.
        ratio: least and greatest height / width of a block.
        context: least and greatest share in the context, before the blocks are cut out of it.
        min_seen: patches that must be left to see; blocks are drawn again where fewer are.
        drop: what is not context does not enter the network; otherwise a mask token stands there.
    """

    num: int = 4
    scale: _Range = (0.15, 0.2)
    ratio: _Range = (0.75, 1.5)
    context: _Range = (0.85, 1.0)
    min_seen: int = 4
    drop: bool = True

    def __post_init__(self) -> None:
        if self.num < 1 or self.min_seen < 1:
            raise ValueError(f"num, min_seen: {self.num}, {self.min_seen}; set both to 1 or more")
        _check_range("scale", self.scale, below=True)
        _check_range("context", self.context)
        if len(self.ratio) != 2 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio: {list(self.ratio)}; give the least and the greatest, above 0")

    def __call__(self, keys: np.ndarray, side: int) -> tuple[Bool[Tensor, "b p"], Bool[Tensor, "b g p"]]:
        """Seen and predicted patches of each example."""
        seen = torch.zeros(len(keys), side**2, dtype=torch.bool)
        blocks = torch.zeros(len(keys), self.num, side**2, dtype=torch.bool)
        left = torch.arange(len(keys))
        for attempt in range(30):
            u = uniforms(keys[left.numpy()], f"block{attempt}", 4 * (self.num + 1)).view(len(left), -1, 4)
            blocks[left] = _rectangles(u[:, 1:], self.scale, self.ratio, side)
            around = _rectangles(u[:, :1], self.context, (1.0, 1.0), side)[:, 0]
            seen[left] = around & ~blocks[left].any(1)
            left = left[seen[left].sum(1) < self.min_seen]
            if not len(left):
                return seen, blocks
        raise ValueError(
            f"mask: blocks leave fewer than {self.min_seen} of {side**2} patches to see; lower num, scale or min_seen"
        )


@dataclass(frozen=True)
class InverseBlock:
    """Everything outside one block is hidden; the block lies anywhere, also across the border (a roll).

    Source:    Darcet et al. 2025 (CAPI), arXiv:2502.08769; Baevski et al. 2022 (data2vec 2.0), arXiv:2212.07525.
               Differs: the block's corner patches make up the exact count.
    Checked:   tests/data/images/test_masks.py - exact counts, the seen patches are one block up to the roll, every
               patch
               equally often.

    Args:
        ratio: share of the patches that is hidden.
        predict: share of the hidden patches that is predicted, chosen at random.
        aspect: least and greatest height / width of the seen block.
        drop: hidden patches do not enter the network; otherwise a mask token stands there.
    """

    ratio: float = 0.65
    predict: float = 1.0
    aspect: _Range = (0.5, 2.0)
    drop: bool = True

    def __post_init__(self) -> None:
        _check_range("ratio", (self.ratio, self.ratio), below=True)
        _check_range("predict", (self.predict, self.predict))
        if len(self.aspect) != 2 or not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect: {list(self.aspect)}; give the least and the greatest, above 0")

    def __call__(self, keys: np.ndarray, side: int) -> tuple[Bool[Tensor, "b p"], Bool[Tensor, "b 1 p"]]:
        """Seen and predicted patches of each example."""
        u = uniforms(keys, "inverse", 3)
        hidden = _count("ratio", torch.full((len(keys),), self.ratio), side**2)
        low, high = (math.log(value) / 2 for value in self.aspect)
        stretch = (low + u[:, 0] * (high - low)).exp()
        # patches enter in the order in which a block growing from the middle would take them in; then all are rolled
        y, x = torch.meshgrid(*[(torch.arange(side) - (side - 1) / 2).abs()] * 2, indexing="ij")
        distance = torch.maximum(y / stretch[:, None, None], x * stretch[:, None, None]).flatten(1)
        block = _ranks(distance) < (side**2 - hidden)[:, None]
        back = (torch.arange(side) - (u[:, 1:, None] * side).floor().long()) % side  # b 2 side
        seen = block.gather(1, (back[:, 0, :, None] * side + back[:, 1, None, :]).flatten(1))
        num = (hidden * self.predict).ceil()
        order = _ranks(uniforms(keys, "predict", side**2).masked_fill(seen, 2.0))
        return seen, (order < num[:, None])[:, None]


@dataclass(frozen=True)
class Causal:
    """No patch is hidden, but each sees only those before it in raster order and the class token, as in language.

    Source:    Xu et al. 2025 (NEPA), arXiv:2512.16922. Differs: none.
    Checked:   tests/backbones/test_causal_vit.py - a later patch changes no earlier state.
    """

    drop: ClassVar[bool] = False

    def __call__(self, keys: np.ndarray, side: int) -> tuple[Bool[Tensor, "b p"], Bool[Tensor, "b 1 p"]]:
        """All patches are seen, none is to be guessed from nothing."""
        seen = torch.ones(len(keys), side**2, dtype=torch.bool)
        return seen, ~seen[:, None]


Mask = Random | Blocks | InverseBlock | Causal
"""The kinds of mask."""


def _rectangles(u: Tensor, scale: _Range, ratio: _Range, side: int) -> Bool[Tensor, "b g p"]:
    area = (scale[0] + u[..., 0] * (scale[1] - scale[0])) * side**2
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (low + u[..., 1] * (high - low)).exp()
    height = (area * aspect).sqrt().round().clamp(1, side)
    width = (area / aspect).sqrt().round().clamp(1, side)
    top, left = (u[..., 2] * (side - height + 1)).floor(), (u[..., 3] * (side - width + 1)).floor()
    line = torch.arange(side)
    rows = (line >= top[..., None]) & (line < (top + height)[..., None])
    columns = (line >= left[..., None]) & (line < (left + width)[..., None])
    return (rows[..., :, None] & columns[..., None, :]).flatten(-2)


def _ranks(values: Tensor) -> Tensor:
    """Place of each value in its row, ties by position."""
    return values.argsort(dim=1, stable=True).argsort(1)


def _count(key: str, share: Tensor, total: int) -> Tensor:
    """A share of the patches as a number that leaves something to see and something to predict."""
    num = (share * total).round()
    if total < 2 or num.min() < 1 or num.max() > total - 1:
        raise ValueError(
            f"mask.{key}: hides {int(num.min())} to {int(num.max())} of {total} patches; leave at least one to see and "
            "one to predict"
        )
    return num


def _pair(value: float | _Range) -> _Range:
    return value if isinstance(value, tuple) else (value, value)


def _check_range(key: str, values: _Range, below: bool = False) -> None:
    if len(values) != 2 or not 0 < values[0] <= values[1] <= 1 or (below and values[1] == 1):
        limit = "below 1" if below else "up to 1"
        raise ValueError(f"{key}: {list(values)}; give numbers above 0 and {limit}, the least first")
