"""Terms as plain data: what predicts what, what is regularized, and the weights. `terms_module.py` runs them."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from latentlm.components.predictors import Identity, Linear, Mlp, PerTokenLinear, Predictor, Shared
from latentlm.components.tap import Tap
from latentlm.components.targets import Targets, random_code
from latentlm.components.teacher import TeacherConfig
from latentlm.components.transformer_predictor import LinearOn, Transformer
from latentlm.config.schema import kind_of
from latentlm.losses import AnchorLoss, DataLoss, NextToken, PairLoss, RowLoss, SetLoss
from latentlm.objective.weight import Weight, schedule
from latentlm.types import ForwardView


@dataclass(frozen=True)
class Predict:
    """One latent predicts another: ``mean over pairs of loss(decode(predictor(source)), decode(target))``.

    A pair is a position of an anchor at which both source and target exist. Only pairs are gathered: values at other
    positions, even NaN, change neither loss nor gradient.

    Args:
        source: latents that predict.
        target: what is predicted.
        loss: a pair loss (one pair), row loss (one pair against all), anchor loss (all positions of an anchor) or, for
            ids, a data loss.
        predictor: from source to guess.
        weight: a number or a schedule.
        decode_with: ``lm_head`` makes logits of guess and target by the network's own output head, which this loss
            does not train; those of a teacher's latents by the teacher's. ``norm_and_lm_head`` applies the final norm
            first.
        shuffle: for a control: every guess gets the target of another pair, half a batch away. Only what all targets
            share can then be predicted.
        teacher: for a control: ``random`` has the target read of a network with random weights that are never trained,
            whatever network its kind names, so only a random code of it can be predicted, see the target `Random`.
        reduction: ``per_position``: all pairs have equal weight; ``per_example``: all examples have, however many pairs
            they have.
        distance_to: name of a set. The loss of a pair is multiplied by ``1 / sqrt(d)``, with d the distance from the
            target's position to the nearest position of the set in the same view (V-JEPA 2.1: ``masked``).
    """

    source: Tap
    target: Targets
    loss: PairLoss | RowLoss | AnchorLoss | DataLoss
    predictor: Predictor = Linear()
    weight: float | Weight = 1.0
    decode_with: Literal["none", "lm_head", "norm_and_lm_head"] = "none"
    shuffle: bool = False
    teacher: Literal["random"] | None = None
    reduction: Literal["per_position", "per_example"] = "per_position"
    distance_to: str | None = None

    def __post_init__(self):
        target = self.predicted
        is_ids = target.needs_lm_head
        if self.distance_to is not None and (target.positions is None or self.pooled):
            raise ValueError("distance_to: goes with targets at single positions; use pool: none and no ids")
        if is_ids != isinstance(self.loss, NextToken):
            raise ValueError("loss: next_token goes with target tokens, and target tokens with loss next_token")
        if is_ids and self.decode_with == "none":
            raise ValueError(
                "decode_with: target tokens needs the readout; use decode_with: lm_head or norm_and_lm_head"
            )
        if not is_ids and target.tap is None and self.decode_with != "none":
            raise ValueError(f"decode_with: a target {kind_of(type(target))} has no logits; use decode_with: none")
        if isinstance(self.loss, AnchorLoss) and (self.decode_with != "none" or self.shuffle):
            raise ValueError(
                f"loss: {self.loss} compares latents of whole anchors; use decode_with: none, shuffle: false"
            )
        if self.source.into == "head":
            _check_into_head(self, trains=not isinstance(self.predictor, Identity) or self.source.head is not None)
            if target.has_gradient:
                raise ValueError(
                    "source.into: head keeps the network out, but the target trains it; set stop_grad: true"
                )
        if target.has_gradient and schedule(self.weight).grad_ratio is not None:
            raise ValueError("weight: grad_ratio cannot be measured where the target has gradient; give a number")

    @property
    def predicted(self) -> Targets:
        """The target, or the random code that `teacher` puts in its place."""
        return self.target if self.teacher is None else random_code(self.target)

    @property
    def pooled(self) -> bool:
        """Whether the target is one vector per anchor, pooled from several positions."""
        return self.target.tap is not None and self.target.tap.pool != "none"

    @property
    def relates(self) -> bool:
        """Whether the predictor takes the coordinates of source and target, so that their positions may differ."""
        return isinstance(self.predictor, Transformer | LinearOn)

    @property
    def slots(self) -> int | None:
        """How many target positions the predictor predicts from one source position; None: one for one."""
        return self.predictor.num if isinstance(self.predictor, PerTokenLinear | Shared) else None

    @property
    def per_sample(self) -> bool:
        """Whether the values of a batch are the same when it is computed in parts."""
        assign, predictor = self.target.assign, self.predictor
        over_batch = isinstance(predictor, Mlp) and predictor.norm == "batch"
        return self.loss.per_sample and not over_batch and (assign is None or assign.per_sample)

    @property
    def mask_key(self) -> Hashable:
        """Everything that `mask` depends on; equal for terms that differ only in depths, heads and losses."""
        return (self.source.at, self.source.pool, self.relates, self.slots), self.target.mask_key

    def resolve(self, num_layers: int) -> "Predict":
        """The same term of a network of `num_layers` blocks, every depth a number of blocks."""
        source, target = self.source.resolve(num_layers), self.predicted.resolve(num_layers)
        if target.tap == source and target.teacher is None and target.assign is None and not self.shuffle:
            raise ValueError("the target is its own source, the same state at the same positions; name another of them")
        return replace(self, source=source, target=target, teacher=None)

    def mask(self, view: ForwardView) -> Tensor:
        """Pairs that exist, ``[a n]``; needs no states."""
        source, target = self.source.mask(view), self.target.mask(view)
        if self.slots is not None:
            target = target & (torch.arange(target.shape[1], device=target.device) < self.slots)
        if self.relates:
            if target.shape[0] % source.shape[0]:
                raise ValueError(
                    f"source has {source.shape[0]} anchors, target {target.shape[0]}: the target must have as many or "
                    "a multiple"
                )
            return source.any(1, keepdim=True).repeat_interleave(target.shape[0] // source.shape[0], 0) & target
        if source.shape[0] != target.shape[0] or (source.shape[1] not in (1, target.shape[1])):
            raise ValueError(
                f"source has {tuple(source.shape)} anchors and positions, target {tuple(target.shape)}: "
                "use index sets that belong together, or pool"
            )
        return source & target


@dataclass(frozen=True)
class Regularize:
    """Shape the distribution of latents: ``loss(all latents of the tap)``.

    Args:
        source: latents to shape.
        loss: set loss.
        sample_axis: ``positions``: every position of every anchor is a sample. ``examples``: the examples are the
            samples, and each position is a separate group. It changes the scale of losses that grow with the number of
            samples.
        weight: a number or a schedule.
    """

    source: Tap
    loss: SetLoss
    sample_axis: Literal["positions", "examples"]
    weight: float | Weight = 1.0

    def __post_init__(self):
        if self.source.into == "head":
            _check_into_head(self, trains=self.source.head is not None)

    @property
    def per_sample(self) -> bool:
        """Whether the value of a batch is the mean of its parts'."""
        return self.loss.per_sample

    def resolve(self, num_layers: int) -> "Regularize":
        """The same term of a network of `num_layers` blocks, every depth a number of blocks."""
        return replace(self, source=self.source.resolve(num_layers))

    def mask(self, view: ForwardView) -> Tensor:
        """Samples that exist."""
        mask = self.source.mask(view)
        return mask if self.sample_axis == "positions" else mask.all(1, keepdim=True).expand_as(mask)


PlainTerm = Predict | Regularize


def _check_into_head(term: PlainTerm, trains: bool) -> None:
    """What a term that leaves the network alone must have."""
    if not trains:
        raise ValueError("source.into: head trains the head alone, and there is none; name one, or leave into out")
    if schedule(term.weight).grad_ratio is not None:
        raise ValueError(
            "weight: grad_ratio is measured at the source, which has no gradient (into: head); give a number"
        )


_SAME = {"ema": "momentum and final_momentum", "frozen": "checkpoint and refresh_every", "random": "seed"}


def teachers(terms: Mapping[str, PlainTerm]) -> dict[str, TeacherConfig]:
    """Teachers that the terms need, and how their weights are made."""
    found: dict[str, TeacherConfig] = {}
    for name, term in terms.items():
        if not isinstance(term, Predict) or term.target.teacher_config is None or term.target.teacher is None:
            continue
        config, kind = term.target.teacher_config, term.target.teacher
        before = found.get(kind, config)
        if replace(before, heads=(), lm_head=False) != replace(config, heads=(), lm_head=False):
            raise ValueError(
                f"terms.{name}: one network has one {kind} teacher; give all such targets the same {_SAME[kind]}"
            )
        heads, decoded = tuple(sorted({*before.heads, *config.heads})), term.decode_with != "none"
        found[kind] = replace(config, heads=heads, lm_head=before.lm_head or decoded)
    for name, term in terms.items():
        if term.source.of not in ("network", *found):
            raise ValueError(f"terms.{name}.source: of {term.source.of}, but no target has that teacher; give one")
    return found


def blocks_read(terms: Mapping[str, PlainTerm], teacher: str | None) -> frozenset[int]:
    """Depths that resolved terms read: of the network itself (None) or of a teacher."""
    found: set[int] = set()
    for term in terms.values():
        found |= set(term.source.blocks) if term.source.of == (teacher or "network") else set()
        if isinstance(term, Predict) and term.target.teacher == teacher:
            tap = term.target.tap
            # a teacher that is read without a state is stopped at its input
            found |= set(tap.blocks) if tap is not None else {0} if teacher is not None else set()
    return frozenset(map(int, found))  # torch 2.9 compiles no other kind of number as a constant


def readers(terms: Mapping[str, PlainTerm], teacher: str) -> tuple[str, ...]:
    """Names of the terms that read a teacher."""
    return tuple(
        name
        for name, term in terms.items()
        if term.source.of == teacher or (isinstance(term, Predict) and term.target.teacher == teacher)
    )
