"""The objective: the data loss and the terms beside it; the only place that selects, averages, weighs and adds."""

import re
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentlm.components.heads import Head
from latentlm.components.tap import resolve_depth
from latentlm.distributed.collectives import all_reduce_sum
from latentlm.losses import AnchorLoss
from latentlm.objective.level_table import Levels
from latentlm.objective.logit_losses import called, values_through
from latentlm.objective.predict import anchors, build_assigners, build_predictors, closeness, pairs, places_of
from latentlm.objective.terms import Predict, Regularize, depths, schedule, teachers
from latentlm.types import ForwardView, StepContext, TermLoss

TINY = 1e-6  # instead of a count of nothing
RATE = 0.3  # share of the newest measurement in a multiplier set by grad_ratio


@dataclass(frozen=True)
class Objective:
    """``L = lm_weight * L_data + sum_i w_i mean(term_i)``.

    Args:
        lm_weight: weight of the network's own data loss (next token).
        terms: latent terms by name; a `Levels` table stands for many.
        heads: projection heads that taps share by name.
        monitor_every: health is measured once in so many optimizer steps, in the first forward of the step; 0 switches
            it off. The steps of any torch optimizer count, so a loop without a trainer is monitored alike.
        source: the paper behind it, for the model card; changes nothing.
    """

    lm_weight: float = 1.0
    terms: dict[str, Predict | Regularize | Levels] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)
    monitor_every: int = 50
    source: str | None = None

    def __post_init__(self):
        if self.lm_weight < 0:
            raise ValueError(f"lm_weight: {self.lm_weight}; set it to 0 or more")
        if self.monitor_every < 0:
            raise ValueError(f"monitor_every: must be 0 (off) or more, got {self.monitor_every}")
        for name in (*self.terms, *self.heads):
            if not re.fullmatch(r"[\w-]+", name) or name in ("data", "monitor") or hasattr(nn.ModuleDict(), name):
                raise ValueError(f"'{name}' cannot name a term or head; use letters, digits, _ and - (some are taken)")
        for name, term in self.terms.items():
            if schedule(term.weight).grad_ratio is not None and (self.monitor_every == 0 or self.lm_weight <= 0):
                needs = (
                    "is measured by the monitor; set monitor_every"
                    if self.lm_weight > 0
                    else "has nothing to hold to; set lm_weight"
                )
                raise ValueError(f"terms.{name}.weight: grad_ratio {needs} above 0")

    @property
    def uses_batch_statistics(self) -> list[str]:
        """Names of the terms and heads whose samples must meet in one forward."""
        heads = [f"heads.{name}" for name, head in self.heads.items() if not head.per_sample]
        return [name for name, term in self.terms.items() if not term.per_sample] + heads

    def expand(self, num_layers: int) -> dict[str, Predict | Regularize]:
        """Plain terms for a network of `num_layers` blocks; depths it does not have are refused here."""
        plain: dict[str, Predict | Regularize] = {}
        for name, term in self.terms.items():
            try:
                cells: dict[str, Predict | Regularize] = {}
                cells |= term.expand(name, num_layers) if isinstance(term, Levels) else {name: term}
                for depth in {d for teacher in (None, *teachers(cells)) for d in depths(cells, teacher)}:
                    resolve_depth(depth, num_layers)
            except ValueError as error:
                raise ValueError(f"objective.terms.{name}: {error}") from error
            plain |= cells
        ratios = [ratio for term in plain.values() if (ratio := schedule(term.weight).grad_ratio)]
        if sum(ratio / (1 + ratio) for ratio in ratios) >= 1 and len(ratios) > 1:
            raise ValueError(
                f"objective: grad_ratio {ratios} cannot all hold at once, each counts the others; lower them"
            )
        return plain


class Terms(nn.Module):
    """Built terms: predictors and shared heads, and one `TermLoss` for each term.

    Args:
        terms: plain terms (tables already expanded) by name.
        heads: shared heads by name.
        hidden: width of the network's states.
        embedding: width of its input embeddings.
        pixels: input values of a position, where the network reads pixels.
    """

    def __init__(
        self,
        terms: dict[str, Predict | Regularize],
        heads: dict[str, Head],
        hidden: int,
        embedding: int,
        pixels: int | None = None,
    ):
        super().__init__()
        self.terms = terms
        self.heads = nn.ModuleDict({name: head.build(hidden) for name, head in heads.items()})
        widths = {name: head.dim for name, head in heads.items()}
        self.predictors = build_predictors(terms, widths, hidden, embedding, pixels)
        self.assigners = build_assigners(terms, widths, hidden)
        self.ratios = {name: ratio for name, term in terms.items() if (ratio := schedule(term.weight).grad_ratio)}
        self.measured: dict[str, tuple[float, float]] = {}  # gradient of the unweighted term, of all the rest
        self.waiting = False
        self.last: int | None = None  # step of the last forward
        self.balance: Tensor  # multiplier and number of measurements of each term in `ratios`
        if self.ratios:
            first = [[schedule(terms[name].weight).value, 0.0] for name in self.ratios]
            self.register_buffer("balance", torch.tensor(first))

    def forward(self, context: StepContext, step: int) -> dict[str, TermLoss]:
        """Sum and count of every term that is on at this step."""
        context.heads = {name: partial(called, head) for name, head in self.heads.items()}
        context.assigners, context.step = self.assigners, step  # type: ignore[assignment]
        if step != self.last:  # one weight for all forwards of an optimizer step
            self.rebalance()
        self.last = step
        values = {name: schedule(term.weight).value for name, term in self.terms.items()}
        values |= dict(zip(self.ratios, self.balance[:, 0], strict=True)) if self.ratios else {}
        reports = {}
        for name, term in self.terms.items():
            weight = values[name] * schedule(term.weight).on(step)
            run = self._predict if isinstance(term, Predict) else self._regularize
            # a term that is still off keeps its weights in the graph, or data parallel training waits for them for ever
            total, count = run(name, term, context, step)  # type: ignore[arg-type]
            reports[name] = TermLoss(total, count, weight)
        return reports

    @torch.no_grad()
    def rebalance(self) -> None:
        """Move the multipliers of terms with a `grad_ratio` by what the last backward measured, on all ranks alike."""
        if not (self.ratios and self.waiting):
            return
        norms = [self.measured.pop(name, (0.0, 0.0)) for name in self.ratios]
        own, rest = all_reduce_sum(self.balance.new_tensor(norms)).T
        wanted = self.balance.new_tensor(list(self.ratios.values())) * rest / own
        known = wanted.isfinite() & (wanted > 0)
        multiplier, seen = self.balance.T
        # a running mean that turns into a moving one; of logarithms, because ratios are compared by factors
        rate = (1 / (seen + 1)).clamp(min=RATE)
        moved = torch.stack([multiplier.log().lerp(wanted.log(), rate).exp(), seen + 1], 1)
        self.balance.copy_(torch.where(known[:, None], moved, self.balance))
        self.waiting = False

    def counts(self, view: ForwardView) -> dict[str, Tensor]:
        """How many values each term will average, from the positions alone."""
        counts = {}
        for name, term in self.terms.items():
            mask = term.mask(view)
            by_anchor = isinstance(term, Predict) and term.reduction == "per_example"
            counts[name] = (mask.any(1) if by_anchor else mask).sum()
        return {n: c.clamp(max=1) if isinstance(self.terms[n], Regularize) else c for n, c in counts.items()}

    def pairs(self, name: str, context: StepContext) -> tuple[Tensor, Tensor]:
        """Guesses and targets ``[m d]`` of a `Predict` term; targets of the data are ids ``[m]``."""
        return pairs(self.terms, self.predictors, name, context)

    def samples(self, name: str, context: StepContext) -> Tensor:
        """Samples ``[*g m d]`` of a `Regularize` term."""
        term = self.terms[name]
        assert isinstance(term, Regularize)
        mask = term.mask(context.view)
        keep = mask.any(1)
        # the pieces of VICReg shape the same latents: the head runs once for all of them
        values = context.cached(
            (term.source, term.sample_axis), lambda: term.source.read(context.run(term.source.of), keep, context.heads)
        ).values
        return values[mask[keep]] if term.sample_axis == "positions" else values.transpose(0, 1)

    def _predict(self, name: str, term: Predict, context: StepContext, step: int) -> tuple[Tensor, Tensor]:
        if isinstance(term.loss, AnchorLoss):
            guess, goal, pair = anchors(self.terms, self.predictors, name, context)
            values = term.loss(guess, goal, pair)[pair]
        else:
            guess, goal = self.pairs(name, context)
            values = (
                term.loss(guess, goal)
                if term.decode_with == "none"
                else values_through(term, guess, goal, context.view)
            )
        if term.distance_to is not None:
            values = values * closeness(term, context)
        if term.reduction == "per_position":
            return values.sum(), torch.tensor(float(values.shape[0]), device=values.device)
        pair = context.cached(places_of(term), lambda: term.mask(context.view))
        share = pair / pair.sum(1, keepdim=True)  # NaN where an anchor has no pair, and nothing is read there
        return (values * share[pair]).sum(), pair.any(1).sum().to(values.dtype)

    def _regularize(self, name: str, term: Regularize, context: StepContext, step: int) -> tuple[Tensor, Tensor]:
        samples = self.samples(name, context)
        count = torch.tensor(float(samples.shape[-2] > 0), device=samples.device)
        # a rank without samples still takes part in the statistic of all, but does not count it a second time
        return term.loss(samples, step) * count, count


def means(
    reports: dict[str, TermLoss], scale: Float[Tensor, ""] | float = 1.0, counts: dict[str, Tensor] | None = None
) -> dict[str, Float[Tensor, ""]]:
    """What turns the sum of each term into its mean over the optimizer step.

        scale / count_i          or   1 / N_i   where `counts` gives N_i

    Args:
        reports: of this forward.
        scale: share of this forward in the optimizer step, where only that is known.
        counts: values averaged over the whole optimizer step on all ranks, by term: then means are exact.
    """
    if counts is not None:
        return {name: 1 / counts[name].clamp(min=TINY) for name in reports}
    return {name: scale / report.count.clamp(min=1) for name, report in reports.items()}


def total(
    reports: dict[str, TermLoss], scale: Float[Tensor, ""] | float = 1.0, counts: dict[str, Tensor] | None = None
) -> Float[Tensor, ""]:
    """The weighted sum of the terms: ``L = sum_i w_i mean_i sum_i`` with `means`."""
    share = means(reports, scale, counts)
    return torch.stack([report.weight * report.sum * share[name] for name, report in reports.items()]).sum()
