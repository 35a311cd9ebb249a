"""From the latents of a term to its pairs of guess and target: predictors by name, and how source and target meet."""

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentlm.components.positions import flat, index, nearness
from latentlm.components.predictors import Dynamics, Shared
from latentlm.components.targets import TokenEmbeddings, target_dim
from latentlm.components.transformer_predictor import LinearOn, Transformer
from latentlm.objective.logit_losses import called
from latentlm.objective.terms import Predict, Regularize
from latentlm.types import ForwardView, Latents, StepContext

Plain = dict[str, Predict | Regularize]


def build_predictors(
    terms: Plain, heads: dict[str, int], hidden: int, embedding: int, pixels: int | None
) -> nn.ModuleDict:
    """The predictor of every term that has one of its own; `heads` are widths."""
    predictors = nn.ModuleDict()
    shapes: dict[str, tuple[int, int]] = {}
    for name, term in terms.items():
        _check_heads(name, term, heads)
        if isinstance(term, Predict):
            wide_in = term.source.dim(hidden, heads)
            shapes[name] = wide_in, target_dim(term.target, hidden, embedding, heads, pixels)
    # branches last: they stand on a transformer that is there by then
    for name in sorted(shapes, key=lambda name: isinstance(terms[name].predictor, LinearOn)):  # type: ignore[union-attr]
        part = terms[name].predictor  # type: ignore[union-attr]
        if isinstance(part, Shared):
            continue
        wide_in, wide_out = shapes[name]
        try:
            if isinstance(part, LinearOn):
                wide_in = _stem(terms, predictors, name, part).wide
            predictors[name] = part.build(wide_in, wide_out, embedding)
        except ValueError as error:
            raise ValueError(f"terms.{name}: {error}") from error
    for name in shapes:
        own = _owner(terms, name)
        if own not in predictors:
            raise ValueError(f"terms.{name}.predictor: no term '{own}' with a predictor of its own")
        if own != name and isinstance(terms[own].predictor, Transformer | LinearOn):  # type: ignore[union-attr]
            raise ValueError(f"terms.{name}.predictor: that of '{own}' is a transformer; use kind: linear_on")
        num, told = (getattr(terms[n].predictor, "num", None) for n in (own, name))  # type: ignore[union-attr]
        if num != told:
            raise ValueError(f"terms.{name}.predictor: that of '{own}' has num {num}, not {told}; set num to {num}")
        if shapes[own] != shapes[name]:
            raise ValueError(f"terms.{name}.predictor: widths {shapes[name]} are not those of '{own}', {shapes[own]}")
        if _conditional(terms, own) and isinstance(terms[name].target, TokenEmbeddings):  # type: ignore[union-attr]
            raise ValueError(f"terms.{name}.predictor: dynamics steps from position to position; a code has none")
    return predictors


def build_assigners(terms: Plain, heads: dict[str, int], hidden: int) -> nn.ModuleDict:
    """What turns the targets of a term into assignments, for every term that asks for it."""
    assigners = nn.ModuleDict()
    for name, term in terms.items():
        part = getattr(term.target, "assign", None) if isinstance(term, Predict) else None
        if part is not None:
            assigners[name] = part.build(term.target.tap.dim(hidden, heads))  # type: ignore[union-attr]
    return assigners


def pairs(terms: Plain, predictors: nn.ModuleDict, name: str, context: StepContext) -> tuple[Tensor, Tensor]:
    """Guesses and targets ``[m d]`` of a `Predict` term, before any readout; data targets are ids ``[m]``."""
    term = terms[name]
    assert isinstance(term, Predict)
    guess, goal, pair = anchors(terms, predictors, name, context)
    if pair.shape[1] == 1:  # every kept anchor has its one pair: nothing to select, nothing to copy
        guess, goal = guess.flatten(0, 1), goal.flatten(0, 1)
    else:
        guess, goal = guess[pair], goal[pair]
    if term.shuffle:
        goal = goal.roll(goal.shape[0] // 2, 0)  # not by 1: the neighbour's next position is one's own
    return guess, goal


def anchors(terms: Plain, predictors: nn.ModuleDict, name: str, context: StepContext) -> tuple[Tensor, Tensor, Tensor]:
    """Guesses and targets ``[a n d]`` of the anchors that have a pair, and which of their pairs exist."""
    term = terms[name]
    assert isinstance(term, Predict)
    where = places_of(term)
    pair = context.cached(where, lambda: term.mask(context.view))
    keep = context.cached((where, "any"), lambda: pair.any(1))
    target = context.cached((where, term.target), lambda: _target(term, name, context, keep, pair[keep]))
    if term.relates:
        guess = _related(terms, predictors, name, context, where, keep, target)
    else:
        view = context.run(term.source.of)
        source = context.cached((where, term.source), lambda: term.source.read(view, keep, context.heads))
        own, conditions = _owner(terms, name), None
        if _conditional(terms, own):
            if source.values.shape[1] != 1:
                raise ValueError(f"terms.{name}: dynamics starts from one position, but source has several; use pool")
            conditions = _embeddings(context.view, target.index)
        if term.slots is not None and source.values.shape[1] != 1:
            raise ValueError(f"terms.{name}: per_token_linear reads one position, but source has several; use pool")
        guess = called(predictors[own], source.values, conditions)
        if term.slots is not None:
            guess = F.pad(guess, (0, 0, 0, pair.shape[1] - term.slots))  # cut where the target has fewer places
    return guess.expand(-1, pair.shape[1], -1), target.values, pair[keep]


def closeness(term: Predict, context: StepContext) -> Tensor:
    """The factor ``[m]`` of every pair, from where its target lies."""
    view, target = context.view, term.target
    assert term.distance_to is not None
    at: Any = target.tap.at if hasattr(target, "tap") else target.at  # type: ignore[union-attr]
    table = context.cached(("distance_to", term.distance_to), lambda: nearness(term.distance_to, view))  # type: ignore[arg-type]
    pair = context.cached(places_of(term), lambda: term.mask(view))
    where = flat(index(at, view), view.segments.shape[1])
    return table.flatten()[where[pair]]


def _target(term: Predict, name: str, context: StepContext, keep: Tensor, pair: Tensor) -> Latents:
    """The target's latents, or the assignments made of them."""
    part: Any = getattr(term.target, "assign", None)
    if part is None:
        return term.target.read(context, keep)
    target: Any = term.target
    assign = context.assigners[name]
    if part.per_position_of is None:
        found = target.read(context, keep)
        rows = assign(found.values[pair], context.step)
        return Latents(rows.new_zeros(*pair.shape, rows.shape[-1]).index_put((pair,), rows), found.mask, found.index)
    every = replace(target, tap=replace(target.tap, at=part.per_position_of))
    table = context.cached(("assigned", every), lambda: _table(every, assign, context))
    where = flat(index(target.tap.at, context.view), context.view.segments.shape[1])[keep]
    values = table.index_select(0, where.clamp(min=0).flatten()).unflatten(0, where.shape)
    return Latents(values.masked_fill((where < 0)[..., None], 0), where >= 0, where)


def _table(target: Any, assign: Any, context: StepContext) -> Tensor:
    """Assignments at every position ``[b*t k]``, NaN where the set does not reach, so that it shows."""
    there = target.mask(context.view)
    if not bool(there.all()):
        raise ValueError(
            f"assign: per_position_of '{target.tap.at}' has places that some anchors miss; name a set that has all"
        )
    found = target.read(context, there.any(1))
    rows = assign(found.values.transpose(0, 1), context.step).transpose(0, 1)
    table = rows.new_full((context.view.segments.numel(), rows.shape[-1]), torch.nan)
    return table.index_put((found.index,), rows)


def _related(
    terms: Plain,
    predictors: nn.ModuleDict,
    name: str,
    context: StepContext,
    where: Hashable,
    keep: Tensor,
    target: Latents,
) -> Tensor:
    """Guesses ``[a n d]`` of a narrow transformer, which is told where its sources and targets lie."""
    term, view = terms[name], context.view
    assert isinstance(term, Predict)
    if view.places is None:
        raise ValueError(f"terms.{name}: narrow needs positions with coordinates, which this network has not; use mlp")
    places, length = view.places, view.segments.shape[1]

    def read() -> Latents:
        num = term.source.mask(view).shape[0]
        times = keep.shape[0] // num  # each anchor of the source serves so many of the target's
        source = term.source.read(context.run(term.source.of), keep.view(num, times).any(1), context.heads)
        if times == 1:
            return source
        rows = (keep.view(num, times).any(1).cumsum(0) - 1).repeat_interleave(times)[keep]
        return Latents(source.values[rows], source.mask[rows], source.index[rows])

    source = context.cached((where, term.source, "served"), read)
    part = term.predictor
    stem: Any = _stem(terms, predictors, name, part) if isinstance(part, LinearOn) else predictors[name]
    owner: str = part.term if isinstance(part, LinearOn) else name

    def run() -> Tensor:
        at = [places[each.index.clamp(min=0) % length] for each in (source, target)]
        values = source.values
        if not torch.is_autocast_enabled(values.device.type):
            values = values.to(stem.token.dtype)
        return stem.trunk(values, source.mask, *at)

    state = context.cached((where, term.source, owner), run)
    return called(predictors[name] if isinstance(part, LinearOn) else stem.out, state)


def _stem(terms: Plain, predictors: nn.ModuleDict, name: str, part: LinearOn) -> Any:
    other, term = terms.get(part.term), terms[name]
    if not isinstance(other, Predict) or not isinstance(other.predictor, Transformer):
        raise ValueError(f"predictor: no term '{part.term}' with a narrow transformer to branch from")
    assert isinstance(term, Predict)
    if (other.source, places_of(other)) != (term.source, places_of(term)):
        raise ValueError(f"predictor: '{part.term}' reads or guesses other positions; a branch needs the same")
    return predictors[part.term]


def _owner(terms: Plain, name: str) -> str:
    """Name of the term whose predictor this term uses."""
    term = terms[name]
    return term.predictor.term if isinstance(term, Predict) and isinstance(term.predictor, Shared) else name


def _conditional(terms: Plain, name: str) -> bool:
    term = terms[name]
    return isinstance(term, Predict) and isinstance(term.predictor, Dynamics)


def places_of(term: Predict) -> tuple[Hashable, Hashable]:
    """All that the mask of a term depends on; equal for terms that differ only in depths, heads and losses."""
    tap = getattr(term.target, "tap", None)
    there = (getattr(term.target, "at", term.target), "none") if tap is None else (tap.at, tap.pool)
    return (term.source.at, term.source.pool, term.relates, term.slots), there


def _embeddings(view: ForwardView, where: Tensor) -> Tensor:
    assert view.embed is not None
    if view.inputs is None:
        raise ValueError("predictor dynamics needs input_ids, but the model was given inputs_embeds")
    return view.embed(view.inputs.flatten()[where.clamp(min=0)]).masked_fill((where < 0)[..., None], 0)


def _check_heads(name: str, term: Predict | Regularize, widths: dict[str, int]) -> None:
    taps = [term.source, getattr(term.target, "tap", term.source) if isinstance(term, Predict) else term.source]
    for tap in taps:
        if tap.head is not None and tap.head not in widths:
            raise ValueError(
                f"terms.{name}: no head '{tap.head}' in the objective (heads: {', '.join(widths) or 'none'})"
            )
