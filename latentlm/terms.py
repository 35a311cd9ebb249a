"""Terms: what predicts what, what is shaped, and how much it weighs. Plain data; `objective.py` runs them."""

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from latentlm.losses import DataLoss, NextToken, PairLoss, RowLoss, SetLoss
from latentlm.predictors import Linear, Predictor
from latentlm.tap import Tap
from latentlm.targets import Data, Target, TokenCode
from latentlm.types import View


@dataclass(frozen=True)
class Weight:
    """A term's multiplier over training.

    Args:
        value: the multiplier once it is fully on.
        start: optimizer step at which the term comes on.
        ramp: steps over which it rises linearly from 0.
        grad_ratio: instead of `value` alone, keep the gradient of the term at its source state this many times as large
            as that of everything else there (measured every `monitor` steps; `value` is the first guess).
    """

    value: float = 1.0
    start: int = 0
    ramp: int = 0
    grad_ratio: float | None = None

    def at(self, step: int) -> float:
        """The multiplier at an optimizer step, before any gradient ratio."""
        if step < self.start:
            return 0.0
        return self.value * (min(1.0, (step - self.start + 1) / self.ramp) if self.ramp else 1.0)

    def times(self, share: float) -> "Weight":
        """The same schedule, scaled."""
        ratio = None if self.grad_ratio is None else self.grad_ratio * share
        return replace(self, value=self.value * share, grad_ratio=ratio)


@dataclass(frozen=True)
class Predict:
    """One latent predicts another: ``mean over pairs of loss(through(predictor(source)), through(target))``.

    Pairs are the anchors and positions at which both source and target exist. Only these are gathered, so values at any
    other position, NaN included, reach neither loss nor gradient.

    Args:
        source: latents that predict.
        target: what is predicted.
        loss: pair loss, row loss (negatives among all pairs) or, for the data, a data loss.
        predictor: from source to guess.
        weight: a number or a schedule.
        through: ``readout`` turns guess and target into logits of the network's own frozen head,
            ``norm_readout`` applies the network's final norm before that.
        shuffle: control arm: targets are rolled by one pair, so only what all targets share can be predicted.
    """

    source: Tap
    target: Target
    loss: PairLoss | RowLoss | DataLoss
    predictor: Predictor = Linear()
    weight: float | Weight = 1.0
    through: Literal["none", "readout", "norm_readout"] = "none"
    shuffle: bool = False

    def __post_init__(self):
        if isinstance(self.target, Data) != isinstance(self.loss, NextToken):
            raise ValueError("loss: next_token goes with target data, and target data with loss next_token")
        if isinstance(self.target, Data) and self.through == "none":
            raise ValueError("through: target data needs the readout; use through: readout or norm_readout")
        if isinstance(self.target, TokenCode) and self.through != "none":
            raise ValueError("through: a token code has no logits; use through: none")

    def mask(self, view: View) -> Tensor:
        """Pairs that exist, ``[a n]``; needs no states."""
        source, target = self.source.mask(view), self.target.mask(view)
        if source.shape[0] != target.shape[0] or (source.shape[1] not in (1, target.shape[1])):
            raise ValueError(
                f"source has {tuple(source.shape)} anchors and positions, target {tuple(target.shape)}: "
                "use index sets that belong together, or pool"
            )
        return source & target


@dataclass(frozen=True)
class Spread:
    """Shape the distribution of latents: ``loss(all latents of the tap)``.

    Args:
        source: latents to shape.
        loss: set loss.
        samples: ``positions``: every position of every anchor is a sample; ``anchors``: anchors are the samples and
            each position of an anchor is a group of its own. It changes the scale of losses that grow with the count.
        weight: a number or a schedule.
    """

    source: Tap
    loss: SetLoss
    samples: Literal["positions", "anchors"]
    weight: float | Weight = 1.0

    def mask(self, view: View) -> Tensor:
        """Samples that exist."""
        mask = self.source.mask(view)
        return mask if self.samples == "positions" else mask.all(1, keepdim=True).expand_as(mask)


def weight_of(term: Predict | Spread) -> Weight:
    """A term's weight as a schedule."""
    return term.weight if isinstance(term.weight, Weight) else Weight(term.weight)
