"""A narrow transformer as predictor: from the latents at some positions of a view to those at others."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from latentlm.components.heads import Compare, dense, width


@dataclass(frozen=True)
class Transformer:
    """A narrow transformer over the latents of the source and a mask token at every target position.

        [g_1 .. g_n] = out(T([E h_1 + c(x_1), .., E h_s + c(x_s), m + c(y_1), .., m + c(y_n)])) at the last n

    with c fixed sines and cosines of a position's coordinates. Source and target may have different numbers of
    positions, such as visible patches and masked ones. Each anchor of the target is predicted by itself. Where the
    target has k times as many anchors as the source, k consecutive ones belong to each source anchor.

    Source:    He et al. 2021 (MAE), arXiv:2111.06377; Assran et al. 2023 (I-JEPA), arXiv:2301.08243. Differs: a
               LayerNorm before E, so that any depth can be the source; the class token is a source only where the index
               set includes it.

    Args:
        hidden: width, a number or a multiple of the source's such as ``0.5x``; a multiple of num_heads and of 4.
        num_layers: blocks.
        num_heads: of attention.
        out: ``linear``; or ``cosine``, the cosine between the state and one unit prototype for each output (CAPI).
    """

    hidden: int | str = "0.5x"
    num_layers: int = 2
    num_heads: int = 4
    out: Literal["linear", "cosine"] = "linear"

    def __post_init__(self):
        if self.num_layers < 1 or self.num_heads < 1:
            raise ValueError(f"transformer: num_layers and num_heads must be 1 or more, got {self}")

    def build(self, dim_in: int, dim_out: int, dim_condition: int) -> nn.Module:
        """The network for these widths."""
        wide = width(self.hidden, dim_in)
        if wide % self.num_heads or wide % 4:
            raise ValueError(
                f"predictor: transformer is {wide} wide; take a multiple of 4 and of num_heads {self.num_heads}"
            )
        return TransformerPredictor(dim_in, wide, dim_out, self)


@dataclass(frozen=True)
class LinearOn:
    """A separate linear layer on the transformer of another term with the same source and target positions.

    Source:    cI-JEPA (blog, 2026-03): one predictor for a source depth, one linear head for each target depth.

    Args:
        term: name of that term.
    """

    term: str

    def build(self, dim_in: int, dim_out: int, dim_condition: int) -> nn.Module:
        """One matrix; `dim_in` is the width of the transformer."""
        return dense(dim_in, dim_out)


class TransformerPredictor(nn.Module):
    """The built `Transformer`."""

    def __init__(self, dim_in: int, wide: int, dim_out: int, part: Transformer):
        super().__init__()
        self.wide = wide
        self.into = nn.Sequential(nn.LayerNorm(dim_in), dense(dim_in, wide))
        self.token = nn.Parameter(torch.randn(wide) * 0.02)
        options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(wide, part.num_heads, 4 * wide, **options) for _ in range(part.num_layers)
        )
        self.norm = nn.LayerNorm(wide)
        self.out = Compare(wide, dim_out) if part.out == "cosine" else dense(wide, dim_out)

    def trunk(
        self,
        values: Float[Tensor, "a s d"],
        there: Bool[Tensor, "a s"],
        places: Shaped[Tensor, "a s k"],
        wanted: Shaped[Tensor, "a n k"],
        asked: Bool[Tensor, "a n"],
    ) -> Float[Tensor, "a n e"]:
        """States at the target positions, from and to which `places` and `wanted` are the coordinates.

        `there` and `asked` say which sources and targets exist; nothing looks at those that do not, so that no other
        row of the batch changes a guess.
        """
        known = self.into(values)
        tokens = self.token.to(known.dtype) + _waves(wanted, self.wide).to(known.dtype)
        state = torch.cat([known + _waves(places, self.wide).to(known.dtype), tokens], 1)
        absent = torch.cat([~there, ~asked], 1)
        absent = absent if bool(absent.any()) else None
        for block in self.blocks:
            state = block(state, src_key_padding_mask=absent)
        return self.norm(state[:, values.shape[1] :])


def _waves(places: Shaped[Tensor, "a n k"], wide: int) -> Float[Tensor, "a n e"]:
    """Sines and cosines of every coordinate, ``wide / k`` numbers each."""
    each = wide // (2 * places.shape[-1])
    rates = 10_000 ** -(torch.arange(each, device=places.device, dtype=torch.float32) / each)
    angles = places[..., None].float() * rates
    waves = torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)
    return nn.functional.pad(waves, (0, wide - waves.shape[-1]))
