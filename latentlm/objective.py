"""The objective: the data loss and the terms beside it; the only place that selects, averages, weighs and adds."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentlm.heads import Head
from latentlm.levels import Levels
from latentlm.predictors import Dynamics, Shared
from latentlm.tap import Depth, resolve_depth
from latentlm.targets import Data, target_dim
from latentlm.terms import Predict, Spread, weight_of
from latentlm.types import Context, Report, View


@dataclass(frozen=True)
class Objective:
    """``L = data * L_data + sum_i w_i mean(term_i)``.

    Args:
        data: weight of the network's own data loss (next token).
        terms: latent terms by name; a `Levels` table stands for many.
        heads: projection heads that taps share by name.
        monitor: health is measured every so many forwards; 0 switches it off.
    """

    data: float = 1.0
    terms: dict[str, Predict | Spread | Levels] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)
    monitor: int = 50

    def __post_init__(self):
        for name in self.terms:
            if not name or "." in name or name in ("data", "monitor"):
                raise ValueError(
                    f"terms: '{name}' cannot be a term's name; use letters, digits and _ (not data, monitor)"
                )

    def expand(self, num_layers: int) -> dict[str, Predict | Spread]:
        """Plain terms for a network of `num_layers` blocks; depths it does not have are refused here."""
        plain: dict[str, Predict | Spread] = {}
        for name, term in self.terms.items():
            try:
                plain |= term.expand(name, num_layers) if isinstance(term, Levels) else {name: term}
                for depth in depths({name: term}, None) if not isinstance(term, Levels) else ():
                    resolve_depth(depth, num_layers)
            except ValueError as error:
                raise ValueError(f"objective.terms.{name}: {error}") from error
        return plain


def teachers(terms: dict[str, Predict | Spread]) -> dict[str, float]:
    """Teachers that the terms ask for, with their momentum (a frozen one keeps everything)."""
    found: dict[str, float] = {}
    for name, term in terms.items():
        kind = term.target.teacher if isinstance(term, Predict) else None
        if kind is None:
            continue
        momentum = getattr(term.target, "momentum", 1.0)  # type: ignore[union-attr]
        if found.setdefault(kind, momentum) != momentum:
            raise ValueError(f"terms.{name}: one network has one ema; give all ema targets the same momentum")
    return found


def depths(terms: dict[str, Predict | Spread], teacher: str | None) -> set[Depth]:
    """Depths read by the terms: of the network itself (None) or of a teacher."""
    found: set[Depth] = set()
    for term in terms.values():
        found |= {term.source.depth} if teacher is None else set()
        tap = getattr(term.target, "tap", None) if isinstance(term, Predict) else None
        if tap is not None and term.target.teacher == teacher:  # type: ignore[union-attr]
            found.add(tap.depth)
    return found


class Terms(nn.Module):
    """Built terms: predictors and shared heads, and one `Report` for each term.

    Args:
        terms: plain terms (tables already expanded) by name.
        heads: shared heads by name.
        hidden: width of the network's states.
        embedding: width of its input embeddings.
    """

    def __init__(self, terms: dict[str, Predict | Spread], heads: dict[str, Head], hidden: int, embedding: int):
        super().__init__()
        self.terms = terms
        self.heads = nn.ModuleDict({name: head.build(hidden) for name, head in heads.items()})
        widths = {name: head.dim for name, head in heads.items()}
        self.predictors = nn.ModuleDict()
        for name, term in terms.items():
            _check_heads(name, term, widths)
            if isinstance(term, Predict) and not isinstance(term.predictor, Shared):
                wide_in = widths[term.source.head] if term.source.head else hidden
                wide_out = target_dim(term.target, hidden, embedding, widths)
                self.predictors[name] = term.predictor.build(wide_in, wide_out, embedding)
        for name, term in terms.items():
            shared = term.predictor.term if isinstance(term, Predict) and isinstance(term.predictor, Shared) else None
            if shared is not None and shared not in self.predictors:
                raise ValueError(f"terms.{name}.predictor: no term '{shared}' with a predictor of its own")

    def forward(self, context: Context, step: int) -> dict[str, Report]:
        """Sum and count of every term that is on at this step."""
        context.heads = dict(self.heads.items())
        reports = {}
        for name, term in self.terms.items():
            weight = weight_of(term).at(step)
            run = self._predict if isinstance(term, Predict) else self._spread
            # a term that is still off keeps its weights in the graph, or data parallel training waits for them for ever
            total, count = run(name, term, context, step)  # type: ignore[arg-type]
            reports[name] = Report(total, count, weight)
        return reports

    def counts(self, view: View) -> dict[str, Tensor]:
        """How many values each term will average, from the positions alone."""
        counts = {name: term.mask(view).sum() for name, term in self.terms.items()}
        return {n: c.clamp(max=1) if isinstance(self.terms[n], Spread) else c for n, c in counts.items()}

    def pairs(self, name: str, context: Context) -> tuple[Tensor, Tensor]:
        """Guesses and targets ``[m d]`` of a `Predict` term; targets of the data are ids ``[m]``."""
        term = self.terms[name]
        assert isinstance(term, Predict)
        pair = term.mask(context.view)
        keep = pair.any(1)
        source = term.source.read(context.view, keep, context.heads)
        target = term.target.read(context, keep)
        own = term.predictor.term if isinstance(term.predictor, Shared) else name
        predictor = self.predictors[own]
        conditions = None
        if isinstance(self.terms[own].predictor, Dynamics):  # type: ignore[union-attr]
            conditions = _embeddings(context.view, target.index)
        weights = next(predictor.parameters(), None)
        values = (
            source.values
            if weights is None or torch.is_autocast_enabled(source.values.device.type)
            else (source.values.to(weights.dtype))
        )
        if conditions is not None:
            conditions = conditions.to(values.dtype)
        guess = predictor(values, conditions)
        guess = guess.expand(-1, pair.shape[1], -1)[pair[keep]]  # m d
        goal = target.values[pair[keep]]
        if term.shuffle:
            goal = goal.roll(1, 0)
        return _through(term, guess, goal, context.view)

    def _predict(self, name: str, term: Predict, context: Context, step: int) -> tuple[Tensor, Tensor]:
        guess, goal = self.pairs(name, context)
        values = term.loss(guess.float(), goal if isinstance(term.target, Data) else goal.float())
        return values.sum(), torch.tensor(float(values.shape[0]), device=values.device)

    def _spread(self, name: str, term: Spread, context: Context, step: int) -> tuple[Tensor, Tensor]:
        mask = term.mask(context.view)
        keep = mask.any(1)
        values = term.source.read(context.view, keep, context.heads).values.float()
        samples = values[mask[keep]] if term.samples == "positions" else values.transpose(0, 1)
        value = term.loss(samples, step)
        return value, torch.tensor(float(samples.shape[-2] > 0), device=value.device)


def total(
    reports: dict[str, Report], scale: Float[Tensor, ""] | float = 1.0, counts: dict[str, Tensor] | None = None
) -> Float[Tensor, ""]:
    """The weighted sum of the terms.

        L = sum_i w_i scale sum_i / count_i          or   L = sum_i w_i sum_i / N_i   where `counts` gives N_i

    Args:
        reports: of this forward.
        scale: share of this forward in the optimizer step, where only that is known.
        counts: values averaged over the whole optimizer step on all ranks, by term: then means are exact.
    """
    parts = []
    for name, report in reports.items():
        if counts is not None and name in counts:
            parts.append(report.weight * report.sum / counts[name].clamp(min=1))
        else:
            parts.append(report.weight * report.value * scale)
    return torch.stack(parts).sum()


def _embeddings(view: View, where: Tensor) -> Tensor:
    assert view.embed is not None
    if view.inputs is None:
        raise ValueError("predictor dynamics needs input_ids, but the model was given inputs_embeds")
    return view.embed(view.inputs.flatten()[where.clamp(min=0)])


def _through(term: Predict, guess: Tensor, goal: Tensor, view: View) -> tuple[Tensor, Tensor]:
    if term.through == "none":
        return guess, goal
    readout: Callable[[Tensor], Tensor] | None = view.readout
    assert readout is not None
    if term.through == "norm_readout" and view.norm is None:
        raise ValueError("through: this model has no final norm; use through: readout")

    def logits(latents: Tensor) -> Tensor:
        return readout(view.norm(latents) if term.through == "norm_readout" and view.norm else latents)

    if isinstance(term.target, Data):
        return logits(guess), goal
    with torch.no_grad():
        goal = logits(goal)
    return logits(guess), goal


def _check_heads(name: str, term: Predict | Spread, widths: dict[str, int]) -> None:
    taps = [term.source, getattr(term.target, "tap", term.source) if isinstance(term, Predict) else term.source]
    for tap in taps:
        if tap.head is not None and tap.head not in widths:
            raise ValueError(
                f"terms.{name}: no head '{tap.head}' in the objective (heads: {', '.join(widths) or 'none'})"
            )
