"""Projection heads on taps. Every tap that names a head shares it; all are dropped after training."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from latentlm.distributed.collectives import all_reduce_count, all_reduce_sum


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


Activation = Literal["gelu", "relu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


@dataclass(frozen=True)
class Projector:
    """Multi-layer projection ``[*b d] -> [*b dim]``.

    Args:
        dim: output width.
        hidden: hidden width, a number or ``4x``.
        num_layers: linear layers in all; 1 is a linear projection.
        norm: before every activation; ``batch`` is over the rows of all ranks (BYOL, VICReg, Barlow Twins).
        final_norm: on the output, without weights (SimSiam).
        activation: between layers; the papers of BYOL, SimCLR, VICReg and Barlow Twins have ``relu``.
    """

    dim: int
    hidden: int | str = "4x"
    num_layers: int = 2
    norm: Literal["none", "layer", "batch"] = "layer"
    final_norm: Literal["none", "layer", "batch"] = "none"
    activation: Activation = "gelu"

    def __post_init__(self):
        if self.dim < 1 or self.num_layers < 1:
            raise ValueError(f"head: dim and num_layers must be at least 1, got {self.dim} and {self.num_layers}")

    @property
    def per_sample(self) -> bool:
        """Whether a row's output depends on that row alone: with batch norm it does not."""
        return "batch" not in (self.norm, self.final_norm)

    def build(self, dim_in: int) -> nn.Module:
        """The projector for latents of width `dim_in`."""
        wide = width(self.hidden, dim_in)
        layers: list[nn.Module] = []
        for _ in range(self.num_layers - 1):
            layers += [dense(dim_in, wide), *norm_layers(self.norm, wide, weights=True), ACTIVATIONS[self.activation]()]
            dim_in = wide
        return nn.Sequential(*layers, dense(dim_in, self.dim), *norm_layers(self.final_norm, self.dim, weights=False))


@dataclass(frozen=True)
class Prototypes:
    """Logits over prototypes ``[*b d] -> [*b dim]``: an MLP to a bottleneck of unit length, then unit prototypes.

        l_k = < z / |z| , c_k / |c_k| >,   z = MLP(h)

    Source:    Caron et al. 2021 (DINO), arXiv:2104.14294. Differs: none.

    Args:
        dim: prototypes.
        hidden: hidden width, a number or ``4x``.
        num_layers: linear layers up to the bottleneck; 0 compares the latents themselves (CAPI).
        bottleneck: width in which latents and prototypes are compared; with 0 layers it is that of the latents.
        frozen_steps: optimizer steps in which the prototypes stay as they were drawn (DINO: one epoch).
        norm, activation: between the layers, as of a projector; SwAV and MSN have ``batch``, SwAV ``relu``.
    """

    dim: int
    hidden: int | str = "4x"
    num_layers: int = 3
    bottleneck: int = 64
    frozen_steps: int = 0
    norm: Literal["none", "layer", "batch"] = "none"
    activation: Activation = "gelu"

    def __post_init__(self):
        if self.dim < 2 or self.num_layers < 0 or self.bottleneck < 1 or self.frozen_steps < 0:
            raise ValueError(
                f"head: needs 2 prototypes, 0 layers, a bottleneck of 1 and 0 frozen_steps, or more of each; got {self}"
            )

    @property
    def per_sample(self) -> bool:
        """Whether a row's output is its own: batch norm asks the others."""
        return self.norm != "batch"

    def build(self, dim_in: int) -> nn.Module:
        """The head for latents of width `dim_in`."""
        widths = [dim_in, *[width(self.hidden, dim_in)] * (self.num_layers - 1), self.bottleneck][: self.num_layers + 1]
        layers: list[nn.Module] = []
        for place, (wide_in, wide_out) in enumerate(pairwise(widths)):
            if place:
                layers += [*norm_layers(self.norm, wide_in, weights=True), ACTIVATIONS[self.activation]()]
            layers.append(dense(wide_in, wide_out))
        return nn.Sequential(*layers, Compare(widths[-1], self.dim, self.frozen_steps))


class Compare(nn.Module):
    """Cosines to unit prototypes: ``l_k = < z / |z| , c_k / |c_k| >``.

    Args:
        dim: width that is compared.
        num: prototypes.
        frozen_steps: optimizer steps in which they stay as they are.

    Attributes:
        is_frozen: set before each forward, by the step.
    """

    def __init__(self, dim: int, num: int, frozen_steps: int = 0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num, dim))
        self.frozen_steps, self.is_frozen = frozen_steps, False

    def forward(self, values: Float[Tensor, "*b d"]) -> Float[Tensor, "*b k"]:
        """One cosine for each prototype."""
        weight = F.normalize(self.weight, dim=-1)
        if self.is_frozen:  # stays in the graph, for which data parallel training waits
            weight = weight.detach() + 0 * (weight - weight.detach())
        return F.linear(F.normalize(values, dim=-1, eps=1e-6), weight.to(values.dtype))


class BatchNorm(nn.Module):
    """Batch normalisation over the rows of all ranks, however many each has.

    There are no running statistics, since heads run in training only.

    Args:
        dim: width.
        weights: scale and shift afterwards.
    """

    def __init__(self, dim: int, weights: bool = True, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim)) if weights else None
        self.bias = nn.Parameter(torch.zeros(dim)) if weights else None

    def forward(self, values: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Zero mean and unit variance over all leading axes."""
        rows = values.flatten(0, -2).to(torch.promote_types(values.dtype, torch.float32))
        count = all_reduce_count(len(rows), rows.device)
        if count == 1:
            raise ValueError("head: batch norm needs at least 2 rows over all ranks, got 1; use a larger batch")
        centred = rows - all_reduce_sum(rows.sum(0)) / max(count, 1)
        normed = centred / (all_reduce_sum(centred.square().sum(0)) / max(count, 1) + self.eps).sqrt()
        if self.weight is not None and self.bias is not None:
            normed = normed * self.weight + self.bias
        return normed.view(values.shape).to(values.dtype)


def norm_layers(kind: str, dim: int, weights: bool) -> list[nn.Module]:
    """The norm of that kind, none for ``none``."""
    if kind == "none":
        return []
    return [BatchNorm(dim, weights) if kind == "batch" else nn.LayerNorm(dim, elementwise_affine=weights)]


Head = Projector | Prototypes
