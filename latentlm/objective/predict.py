"""A `Predict` term as a module: from the latents of source and target to the sum of its losses."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from latentlm.components.positions import flat, index, nearness
from latentlm.components.predictors import Dynamics, Shared
from latentlm.components.tap import Widths
from latentlm.components.target_protocol import Target
from latentlm.components.transformer_predictor import LinearOn, Transformer, TransformerPredictor
from latentlm.losses import AnchorLoss
from latentlm.objective.logit_losses import called, values_through
from latentlm.objective.terms import Predict
from latentlm.types import ForwardView, Latents, StepContext, TermLoss


class PredictTerm(nn.Module):
    """A `Predict` term with its predictor and assigner.

        sum over pairs of loss(predictor(source), target),   and how many pairs there are

    Shapes:    guesses and targets [a n d] of ``a`` anchors with ``n`` positions; a pair is where both exist.
    Gradient:  into predictor and source; into the target where it has gradient.

    Args:
        name: of the term, for errors.
        spec: what predicts what; its depths are resolved.
        widths: of the network.
        others: terms built before. `Shared` uses the predictor of one of them, `LinearOn` its transformer.
    """

    def __init__(self, name: str, spec: Predict, widths: Widths, others: Mapping[str, nn.Module]):
        super().__init__()
        self.name, self.spec = name, spec
        for tap in (spec.source, spec.target.tap):
            if tap is not None and tap.head is not None and tap.head not in widths.heads:
                have = ", ".join(widths.heads) or "none"
                raise ValueError(f"terms.{name}: no head '{tap.head}' in the objective (heads: {have})")
        self.widths = spec.source.dim(widths), spec.target.dim(widths)
        lender = others.get(spec.predictor.term) if isinstance(spec.predictor, Shared | LinearOn) else None
        # in a tuple: as a child of this term its weights would be saved twice
        self._lender: tuple[PredictTerm, ...] = (lender,) if isinstance(lender, PredictTerm) else ()
        self._check_lender()
        try:
            self.predictor = self._build(widths.embedding)
        except ValueError as error:
            raise ValueError(f"terms.{name}: {error}") from error
        assign, tap = spec.target.assign, spec.target.tap
        self.assigner = None if assign is None or tap is None else assign.build(tap.dim(widths))

    def gather(
        self, context: StepContext
    ) -> tuple[Float[Tensor, "a n d"], Shaped[Tensor, "a n *e"], Bool[Tensor, "a n"]]:
        """Guesses and targets of all anchors with a pair, and a mask of the pairs."""
        spec, key, context = self.spec, self.spec.mask_key, context.for_term(self.name)
        pair = context.cached(key, lambda: spec.mask(context.view))
        keep = context.cached((key, "any"), lambda: pair.any(1))
        target: Latents = context.cached((key, spec.target), lambda: self._target(context, keep, pair[keep]))
        if spec.relates:
            guess = self._related(context, keep, target)
        else:
            view = context.view_of(spec.source.of)
            source = context.cached((key, spec.source), lambda: spec.source.read(view, keep, context.heads))
            guess = self._guess(source, target, context.view)
            if spec.slots is not None:
                guess = F.pad(guess, (0, 0, 0, pair.shape[1] - spec.slots))  # cut where the target has fewer places
        return guess.expand(-1, pair.shape[1], -1), target.values, pair[keep]

    def pairs(self, context: StepContext) -> tuple[Float[Tensor, "m d"], Shaped[Tensor, "m *e"]]:
        """Guesses and targets of all pairs, before they are decoded; targets of the data are ids ``[m]``."""
        guess, goal, pair = self.gather(context)
        if pair.shape[1] == 1:  # every kept anchor has its one pair: nothing to select, nothing to copy
            guess, goal = guess.flatten(0, 1), goal.flatten(0, 1)
        else:
            guess, goal = guess[pair], goal[pair]
        if self.spec.shuffle:
            goal = goal.roll(goal.shape[0] // 2, 0)  # not by 1: the neighbour's next position is one's own
        return guess, goal

    def count(self, view: ForwardView) -> Tensor:
        """How many values the term will average, from the positions alone."""
        mask = self.spec.mask(view.for_term(self.name))
        return (mask.any(1) if self.spec.reduction == "per_example" else mask).sum()

    def forward(self, context: StepContext) -> TermLoss:
        """Sum of the losses and their number."""
        spec, context = self.spec, context.for_term(self.name)
        if isinstance(spec.loss, AnchorLoss):
            guess, goal, pair = self.gather(context)
            values = spec.loss(guess, goal, pair)[pair]
        else:
            guess, goal = self.pairs(context)
            plain = spec.decode_with == "none"
            teacher = spec.target.teacher
            other = context.view if teacher is None else context.teacher_views[teacher]
            values = spec.loss(guess, goal) if plain else values_through(spec, guess, goal, context.view, other)
        if spec.distance_to is not None:
            values = values * self._closeness(context)
        if spec.reduction == "per_position":
            return TermLoss(values.sum(), torch.tensor(float(values.shape[0]), device=values.device))
        pair = context.cached(spec.mask_key, lambda: spec.mask(context.view))
        share = pair / pair.sum(1, keepdim=True)  # NaN where an anchor has no pair, and nothing is read there
        return TermLoss((values * share[pair]).sum(), pair.any(1).sum().to(values.dtype))

    def _build(self, embedding: int) -> nn.Module | None:
        part = self.spec.predictor
        if isinstance(part, Shared):
            return None
        wide_in, wide_out = self.widths
        if isinstance(part, LinearOn):
            wide_in = self._trunk(part).wide
        return part.build(wide_in, wide_out, embedding)

    def _check_lender(self) -> None:
        """A borrowed predictor must exist and have the right widths."""
        part, key, lender = (
            self.spec.predictor,
            f"terms.{self.name}.predictor",
            self._lender[0] if self._lender else self,
        )
        owner = lender.spec.predictor
        if isinstance(part, Shared):
            if lender is self or isinstance(owner, Shared):
                raise ValueError(f"{key}: no term '{part.term}' with a predictor of its own")
            if isinstance(owner, Transformer | LinearOn):
                raise ValueError(f"{key}: that of '{part.term}' is a transformer; use kind: linear_on")
            num = lender.spec.slots
            if num != part.num:
                raise ValueError(f"{key}: that of '{part.term}' has num {num}, not {part.num}; set num to {num}")
            if self.widths != lender.widths:
                raise ValueError(f"{key}: widths {self.widths} are not those of '{part.term}', {lender.widths}")
        if isinstance(owner, Dynamics) and self.spec.target.positions is None:
            raise ValueError(f"{key}: dynamics steps from position to position; a set of ids has none")

    def _trunk(self, part: LinearOn) -> TransformerPredictor:
        """The transformer of another term with the same source and target positions."""
        other = self._lender[0] if self._lender else None
        if other is None or not isinstance(other.predictor, TransformerPredictor):
            raise ValueError(f"predictor: no term '{part.term}' with a transformer for kind linear_on")
        if (other.spec.source, other.spec.mask_key) != (self.spec.source, self.spec.mask_key):
            raise ValueError(f"predictor: '{part.term}' reads or guesses other positions; linear_on needs the same")
        return other.predictor

    def _guess(self, source: Latents, target: Latents, view: ForwardView) -> Tensor:
        """Guesses of a predictor that needs no coordinates."""
        owner = self._lender[0] if self._lender else self
        conditions = None
        if isinstance(owner.spec.predictor, Dynamics):
            if source.values.shape[1] != 1:
                raise ValueError(
                    f"terms.{self.name}: dynamics starts from one position, but source has several; use pool"
                )
            conditions = _embeddings(view, target.index)
            conditions = conditions.detach() if self.spec.source.into == "head" else conditions
        if self.spec.slots is not None and source.values.shape[1] != 1:
            raise ValueError(
                f"terms.{self.name}: per_token_linear reads one position, but source has several; use pool"
            )
        assert owner.predictor is not None
        return called(owner.predictor, source.values, conditions)

    def _related(self, context: StepContext, keep: Bool[Tensor, " all_a"], target: Latents) -> Tensor:
        """Guesses ``[a n d]`` of a transformer, from the coordinates of sources and targets."""
        spec, view = self.spec, context.view
        if view.places is None:
            raise ValueError(
                f"terms.{self.name}: predictor transformer needs positions with coordinates, which this network has "
                "not; use mlp"
            )
        places, length = view.places, view.segments.shape[1]

        def read() -> Latents:
            num = spec.source.mask(view).shape[0]
            times = keep.shape[0] // num  # each anchor of the source serves so many of the target's
            source = spec.source.read(context.view_of(spec.source.of), keep.view(num, times).any(1), context.heads)
            if times == 1:
                return source
            rows = (keep.view(num, times).any(1).cumsum(0) - 1).repeat_interleave(times)[keep]
            return Latents(source.values[rows], source.mask[rows], source.index[rows])

        source = context.cached((spec.mask_key, spec.source, "served"), read)
        owner = self._lender[0] if self._lender else self
        trunk = owner.predictor
        assert isinstance(trunk, TransformerPredictor)

        def run() -> Tensor:
            here, there = (places[each.index.clamp(min=0) % length] for each in (source, target))
            values = source.values
            if not torch.is_autocast_enabled(values.device.type):
                values = values.to(trunk.token.dtype)
            return trunk.trunk(values, source.mask, here, there, target.mask)

        state = context.cached((spec.mask_key, spec.source, owner.name), run)
        own = self.predictor if owner is not self else trunk.out
        assert own is not None
        return called(own, state)

    def _target(self, context: StepContext, keep: Bool[Tensor, " all_a"], pair: Bool[Tensor, "a n"]) -> Latents:
        """The target's latents, or their assignments."""
        target, assign, assigner = self.spec.target, self.spec.target.assign, self.assigner
        if assign is None or assigner is None:
            return target.read(context, keep)
        if assign.per_position_of is None:
            found = target.read(context, keep)
            rows = assigner(found.values[pair], context.step)
            values = rows.new_zeros(*pair.shape, rows.shape[-1]).index_put((pair,), rows)
            return Latents(values, found.mask, found.index)
        every = target.over(assign.per_position_of)
        table = context.cached(("assigned", every), lambda: _table(every, assigner, context))
        where = flat(index(target.positions, context.view), context.view.segments.shape[1])[keep]  # type: ignore[arg-type]
        values = table.index_select(0, where.clamp(min=0).flatten()).unflatten(0, where.shape)
        return Latents(values.masked_fill((where < 0)[..., None], 0), where >= 0, where)

    def _closeness(self, context: StepContext) -> Float[Tensor, " m"]:
        """Factor of every pair: ``1 / sqrt(distance)`` of its target's position."""
        spec, view = self.spec, context.view
        near, at = spec.distance_to, spec.target.positions
        assert near is not None
        assert at is not None  # refused by the spec
        table = context.cached(("distance_to", near), lambda: nearness(near, view))
        pair = context.cached(spec.mask_key, lambda: spec.mask(view))
        return table.flatten()[flat(index(at, view), view.segments.shape[1])[pair]]


def _table(target: Target, assigner: nn.Module, context: StepContext) -> Tensor:
    """Assignments at every position ``[b*t k]``; NaN at positions outside the set, so that a mistake shows."""
    valid = target.mask(context.view)
    if not bool(valid.all()):
        raise ValueError(
            f"assign: per_position_of '{target.positions}' has places that some anchors miss; name a set that has all"
        )
    found = target.read(context, valid.any(1))
    rows = assigner(found.values.transpose(0, 1), context.step).transpose(0, 1)
    table = rows.new_full((context.view.segments.numel(), rows.shape[-1]), torch.nan)
    return table.index_put((found.index,), rows)


def _embeddings(view: ForwardView, where: Tensor) -> Tensor:
    assert view.embed is not None
    if view.inputs is None:
        raise ValueError("predictor dynamics needs input_ids, but the model was given inputs_embeds")
    return view.embed(view.inputs.flatten()[where.clamp(min=0)]).masked_fill((where < 0)[..., None], 0)
