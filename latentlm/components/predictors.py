"""Predictors: from the latents of the source to a guess of the target.

A built predictor is called as ``(values [a s d], conditions [a n e] | None) -> [a n d']``, where ``a`` counts anchors
and ``s`` is ``n`` or 1. Predictors of single positions ignore the conditions. `PerTokenLinear` always returns ``num``
guesses. `Transformer` and `LinearOn` take coordinates instead, and their ``s`` and ``n`` are independent.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from latentlm.components.heads import ACTIVATIONS, Activation, dense, norm_layers, width
from latentlm.components.transformer_predictor import LinearOn, Transformer


class PositionWise(nn.Module):
    """A network applied to each position by itself."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, values: Float[Tensor, "a s d"], conditions: Tensor | None = None) -> Float[Tensor, "a s e"]:
        """Predict each target from the source at the same position."""
        return self.network(values)


@dataclass(frozen=True)
class Identity:
    """The guess is the source itself; source and target must have one width."""

    def build(self, dim_in: int, dim_out: int, dim_condition: int) -> nn.Module:
        """No weights."""
        if dim_in != dim_out:
            raise ValueError(f"predictor: identity cannot go from width {dim_in} to {dim_out}; use linear")
        return PositionWise(nn.Identity())


@dataclass(frozen=True)
class Linear:
    """``W h + b``: predicts what is linearly readable, and nothing more.

    Args:
        bias: add ``b``.
    """

    bias: bool = True

    def build(self, dim_in: int, dim_out: int, dim_condition: int) -> nn.Module:
        """One matrix."""
        return PositionWise(dense(dim_in, dim_out, self.bias))


@dataclass(frozen=True)
class PerTokenLinear:
    """``W_j h + b_j``: a matrix for each position j of the target, so that one latent predicts several tokens in order.

    Made for the tokens of a span: ``target: {kind: token_embeddings, pool: none, ordered: false}``.

    Args:
        num: positions; further ones of the target are not predicted.
    """

    num: int = 8

    def __post_init__(self):
        if self.num < 1:
            raise ValueError(f"per_token_linear: num must be at least 1, got {self.num}")

    def build(self, dim_in: int, dim_out: int, dim_condition: int) -> nn.Module:
        """All matrices in one."""
        return _PerTokenLinear(dense(dim_in, self.num * dim_out), self.num)


@dataclass(frozen=True)
class Mlp:
    """LayerNorm, then `num_layers` linear layers with an activation between them.

    Args:
        hidden: width, or a multiple of the input's such as ``2x``.
        num_layers: linear layers in all, at least 2.
        residual: add the input (equal widths only).
        norm: ``layer`` on the input, or ``batch`` before every activation (BYOL, SimSiam).
        activation: between layers.
    """

    hidden: int | str = "2x"
    num_layers: int = 2
    residual: bool = False
    norm: Literal["layer", "batch"] = "layer"
    activation: Activation = "gelu"

    def __post_init__(self):
        if self.num_layers < 2:
            raise ValueError(f"mlp: num_layers must be at least 2, got {self.num_layers}; one layer is 'linear'")

    def build(self, dim_in: int, dim_out: int, dim_condition: int) -> nn.Module:
        """The network for these widths."""
        if self.residual and dim_in != dim_out:
            raise ValueError(f"predictor: a residual mlp needs equal widths, not {dim_in} and {dim_out}")
        network = _mlp(
            dim_in, width(self.hidden, dim_in), dim_out, self.num_layers, self.norm == "batch", self.activation
        )
        return PositionWise(Residual(network) if self.residual else network)


@dataclass(frozen=True)
class Swiglu:
    """``W_o (silu(W_g h) * W_i h)``: NITP's projector (arXiv 2605.24956), d -> hidden -> d without biases.

    Args:
        hidden: width between, a number or a multiple of the input's such as ``4x``.
    """

    hidden: int | str = "4x"

    def build(self, dim_in: int, dim_out: int, dim_condition: int) -> nn.Module:
        """Three matrices."""
        return PositionWise(_Swiglu(dim_in, width(self.hidden, dim_in), dim_out))


@dataclass(frozen=True)
class Dynamics:
    """One step of the latent, given the next token, repeated over the target's positions (NextLat, arXiv 2511.05963).

        h_1 = p(h, e_1),  h_i = p(h_{i-1}, e_i),  p(h, e) = h + f(LayerNorm([h ; e]))

    with e_i the input embedding at the i-th target position and f three linear layers with GELU. The embeddings receive
    gradient.

    Args:
        hidden: width of f, a number or a multiple of the latents' width.
    """

    hidden: int | str = "2x"

    def build(self, dim_in: int, dim_out: int, dim_condition: int) -> nn.Module:
        """The recurrent cell; embeddings may have another width than the latents."""
        if dim_in != dim_out:
            raise ValueError(f"predictor: dynamics keeps the width, but source has {dim_in} and target {dim_out}")
        return _Rollout(dim_in, dim_condition, width(self.hidden, dim_in))


@dataclass(frozen=True)
class Shared:
    """The predictor of another term, so that two losses train one predictor.

    Args:
        term: name of that term.
        num: ``num`` of that term's predictor, where it has one.
    """

    term: str
    num: int | None = None


Predictor = Identity | Linear | PerTokenLinear | Mlp | Swiglu | Dynamics | Shared | Transformer | LinearOn


class Residual(nn.Module):
    """``x + f(x)``."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, values: Tensor) -> Tensor:
        """Add the network's output to its input."""
        return values + self.network(values)


class _Swiglu(nn.Module):
    def __init__(self, dim_in: int, hidden: int, dim_out: int):
        super().__init__()
        self.gate, self.up = dense(dim_in, hidden, bias=False), dense(dim_in, hidden, bias=False)
        self.down = dense(hidden, dim_out, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(values)) * self.up(values))


class _PerTokenLinear(nn.Module):
    def __init__(self, network: nn.Linear, num: int):
        super().__init__()
        self.network, self.num = network, num

    def forward(self, values: Float[Tensor, "a 1 d"], conditions: Tensor | None = None) -> Float[Tensor, "a num e"]:
        return self.network(values).view(values.shape[0], self.num, -1)


class _Rollout(nn.Module):
    def __init__(self, dim: int, dim_condition: int, hidden: int):
        super().__init__()
        self.network = _mlp(dim + dim_condition, hidden, dim, num_layers=3)

    def forward(self, values: Float[Tensor, "a 1 d"], conditions: Float[Tensor, "a n e"]) -> Float[Tensor, "a n d"]:
        state, states = values[:, 0], []
        for step in range(conditions.shape[1]):
            state = state + self.network(torch.cat([state, conditions[:, step]], -1))
            states.append(state)
        return torch.stack(states, 1)


def _mlp(
    dim_in: int, hidden: int, dim_out: int, num_layers: int, batch_norm: bool = False, activation: str = "gelu"
) -> nn.Sequential:
    widths = [dim_in, *[hidden] * (num_layers - 1), dim_out]
    layers: list[nn.Module] = [] if batch_norm else [nn.LayerNorm(dim_in)]
    for place, (wide_in, wide_out) in enumerate(pairwise(widths)):
        if place:
            layers += [
                *norm_layers("batch" if batch_norm else "none", wide_in, weights=True),
                ACTIVATIONS[activation](),
            ]
        layers.append(dense(wide_in, wide_out))
    return nn.Sequential(*layers)
