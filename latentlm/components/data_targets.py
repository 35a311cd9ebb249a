"""Targets that are the data itself, the lowest level of all: token ids and pixels.

`mask` says which anchors and positions a target has, without running the network; `read` returns their values.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from latentlm.components.positions import At, Now, check_ids, flat, ids_of, index
from latentlm.components.tap import Widths
from latentlm.components.target_protocol import InputTarget
from latentlm.components.units import Unit
from latentlm.types import ForwardView, Latents, StepContext


@dataclass(frozen=True)
class Tokens(InputTarget):
    """The data: the token id that each position has to predict.

        target = x_{t+1}   (whatever the labels say; -100 is no target)     or, with `ids`, the ids that the data gives

    Shapes:    [a n] ids; needs the loss next_token and `decode_with`.
    Gradient:  none.
    Scale:     -
    Ranks:     local.
    Source:    next-token prediction; at every depth: LayerSkip, arXiv 2404.16710.
    Checked:   tests/objective/test_level_table.py - at the top equals the model's own loss;
               tests/components/test_targets.py - ids.

    Args:
        at: the positions that predict.
        ids: name of the id set that the data gives, or a unit whose tokens are predicted (``pick: all``), in place of
            the labels: with predictor linear as a bag, with per_token_linear in their order.
    """

    at: At = Now()
    ids: str | Unit | None = None
    needs_lm_head = True

    def __post_init__(self):
        if self.ids is not None and self.at != Now():
            raise ValueError("tokens: at says whose labels are read, and ids takes their place; give one of them")
        if self.ids is not None:
            check_ids("tokens", self.ids)

    @property
    def positions(self) -> At | None:
        """The positions that predict; a set of ids has none."""
        return self.at if self.ids is None else None

    @property
    def index_sets(self) -> tuple[At, ...]:
        """The positions that predict, or the ids in their place."""
        return (self.at if self.ids is None else self.ids,)

    def dim(self, widths: Widths) -> int:
        """Width of the states, which the head turns into logits."""
        return widths.hidden

    def mask(self, view: ForwardView) -> Bool[Tensor, "a n"]:
        """Positions that have a label."""
        if self.ids is not None:
            return ids_of(self.ids, view).flatten(0, 1) >= 0
        if view.labels is None:
            raise ValueError("target tokens: the batch has no labels; use a collator that gives them")
        where = flat(index(self.at, view), view.labels.shape[1])
        return (where >= 0) & (view.labels.flatten()[where.clamp(min=0)] >= 0)

    def read(self, context: StepContext, keep: Bool[Tensor, " a"]) -> Latents:
        """Ids of the anchors kept."""
        if self.ids is not None:
            ids = ids_of(self.ids, context.view).flatten(0, 1)[keep]
            return Latents(ids.clamp(min=0), ids >= 0, torch.full_like(ids, -1))
        labels = context.view.labels
        assert labels is not None
        where = flat(index(self.at, context.view), labels.shape[1])[keep]
        ids = labels.flatten()[where.clamp(min=0)]
        return Latents(ids, (where >= 0) & (ids >= 0), where)


@dataclass(frozen=True)
class Pixels(InputTarget):
    """The pixels at each position, for networks that take images: MAE's target.

        target = x_j    or with normalize: patch    (x_j - mean x_j) / sqrt(Var x_j + eps),  Var unbiased

    Shapes:    [a n e], e the pixel values of a position, channels last.
    Gradient:  none.
    Scale:     unit variance with ``patch``: predicting 0 gives an Mse of (e - 1) / e.
    Ranks:     local.
    Source:    He et al. 2021 (MAE), arXiv:2111.06377. Differs: a larger `eps` (1e-6 there), so that the noise of flat
               patches is not amplified.
    Checked:   tests/objective/test_equations_vision.py - naive float64 loop; a flat patch gives zeros.

    Args:
        at: the positions that are predicted.
        normalize: ``patch`` normalises each position by itself.
        eps: added to the variance.
    """

    at: At = Now()
    normalize: Literal["none", "patch"] = "patch"
    eps: float = 1e-2

    @property
    def positions(self) -> At:
        """Positions that are predicted."""
        return self.at

    @property
    def index_sets(self) -> tuple[At, ...]:
        """Positions that are predicted."""
        return (self.at,)

    @property
    def mask_key(self) -> Hashable:
        """Equal to that of states at the same positions."""
        return self.at, "none"

    def dim(self, widths: Widths) -> int:
        """Values of a position."""
        if widths.pixels is None:
            raise ValueError("target pixels: this network reads no pixels; use target tokens")
        return widths.pixels

    def mask(self, view: ForwardView) -> Bool[Tensor, "a n"]:
        """Positions that exist."""
        if view.pixels is None:
            raise ValueError("target pixels: this network reads no pixels; use target tokens")
        return index(self.at, view).flatten(0, 1) >= 0

    @torch.no_grad()
    def read(self, context: StepContext, keep: Bool[Tensor, " a"]) -> Latents:
        """Values of the anchors kept."""
        assert context.view.pixels is not None
        where = flat(index(self.at, context.view), context.view.segments.shape[1])[keep]
        values = context.cached("pixels", context.view.pixels).flatten(0, 1)
        found = values.index_select(0, where.clamp(min=0).flatten()).unflatten(0, where.shape)
        found = found.to(torch.promote_types(found.dtype, torch.float32))
        if self.normalize == "patch" and found.numel():
            variance, mean = torch.var_mean(found, -1, keepdim=True)
            found = (found - mean) / (variance + self.eps).sqrt()
        return Latents(found, where >= 0, where)
