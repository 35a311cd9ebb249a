"""Projection heads on taps: shared by every tap that names them, thrown away after training."""

from dataclasses import dataclass
from typing import Literal

from torch import nn


def dense(dim_in: int, dim_out: int, bias: bool = True) -> nn.Linear:
    """A linear layer that keeps the scale of its input: weights N(0, 1/dim_in), bias 0.

    Explicit because a model's own initialisation (std 0.02) makes the first gradients of a cosine
    loss ~30 times larger.
    """
    layer = nn.Linear(dim_in, dim_out, bias=bias)
    nn.init.normal_(layer.weight, std=dim_in**-0.5)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def width(hidden: int | str, dim: int) -> int:
    """A hidden width: a number, or a multiple of `dim` written ``4x``."""
    try:
        wide = hidden if isinstance(hidden, int) else int(float(hidden.removesuffix("x")) * dim)
    except (ValueError, OverflowError):
        raise ValueError(f"hidden: {hidden!r} is neither a width nor a multiple like 4x") from None
    if wide < 1:
        raise ValueError(f"hidden: {hidden!r} of width {dim} leaves no units; use a larger one")
    return wide


@dataclass(frozen=True)
class Projector:
    """Multi-layer projection ``[*b d] -> [*b dim]``.

    Args:
        dim: output width.
        hidden: hidden width, a number or ``4x``.
        num_layers: linear layers in all; 1 is a linear projection.
        norm: ``layer`` puts a LayerNorm before every activation.
    """

    dim: int
    hidden: int | str = "4x"
    num_layers: int = 2
    norm: Literal["none", "layer"] = "layer"

    def __post_init__(self):
        if self.dim < 1 or self.num_layers < 1:
            raise ValueError(f"head: dim and num_layers must be at least 1, got {self.dim} and {self.num_layers}")

    def build(self, dim_in: int) -> nn.Module:
        """The projector for latents of width `dim_in`."""
        wide = width(self.hidden, dim_in)
        layers: list[nn.Module] = []
        for _ in range(self.num_layers - 1):
            layers += [dense(dim_in, wide), *([nn.LayerNorm(wide)] if self.norm == "layer" else []), nn.GELU()]
            dim_in = wide
        return nn.Sequential(*layers, dense(dim_in, self.dim))


Head = Projector
