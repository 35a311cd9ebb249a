"""The objective: the data loss and the latent terms; the only place that averages, weighs and adds."""

import re
from dataclasses import dataclass, field
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentlm.components.heads import Head
from latentlm.objective.level_table import Levels
from latentlm.objective.terms import PlainTerm, Predict, Regularize, teachers
from latentlm.objective.unit_levels import UnitLevels
from latentlm.objective.weight import schedule
from latentlm.types import TermLoss

TINY = 1e-6  # in place of a count of 0


@dataclass(frozen=True)
class Objective:
    """``L = lm_weight * L_data + sum_i w_i mean(term_i)``.

    Args:
        lm_weight: weight of the network's own data loss (next token).
        terms: latent terms by name; a table (`Levels` over depths, `UnitLevels` over units) stands for many.
        heads: projection heads that taps share by name.
        monitor_every: measure collapse and gradients every so many optimizer steps, in the first forward of the step;
            0 switches it off. Steps of any torch optimizer count, with a trainer or in your own loop.
        source: the paper behind it, for the model card; changes nothing.
    """

    lm_weight: float = 1.0
    terms: dict[str, Predict | Regularize | Levels | UnitLevels] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)
    monitor_every: int = 50
    source: str | None = None

    def __post_init__(self):
        if not 0 <= self.lm_weight < inf:
            raise ValueError(f"lm_weight: {self.lm_weight}; set it to 0 or more, and finite")
        if self.terms and self.lm_weight == 0 and not any(schedule(term.weight).value for term in self.terms.values()):
            raise ValueError("lm_weight and the weight of every term are 0, so nothing is trained; set one above 0")
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
        """Names of the terms and heads whose values depend on which samples are in one batch."""
        heads = [f"heads.{name}" for name, head in self.heads.items() if not head.per_sample]
        return [name for name, term in self.terms.items() if not term.per_sample] + heads

    def resolve(self, num_layers: int) -> dict[str, PlainTerm]:
        """Plain terms for a network of `num_layers` blocks, every depth a number of blocks.

        A level table becomes its `Predict` terms. ValueError for a depth that the network does not have.
        """
        plain: dict[str, PlainTerm] = {}
        for name, term in self.terms.items():
            try:
                if isinstance(term, Levels | UnitLevels):
                    plain |= term.expand(name, num_layers)
                else:
                    plain[name] = term.resolve(num_layers)
            except ValueError as error:
                raise ValueError(f"objective.terms.{name}: {error}") from error
        try:
            teachers(plain)
        except ValueError as error:
            raise ValueError(f"objective.{error}") from error
        ratios = [ratio for term in plain.values() if (ratio := schedule(term.weight).grad_ratio)]
        if sum(ratio / (1 + ratio) for ratio in ratios) >= 1 and len(ratios) > 1:
            raise ValueError(
                f"objective: grad_ratio {ratios} cannot all hold at once, each counts the others; lower them"
            )
        return plain


def means(
    reports: dict[str, TermLoss], scale: Float[Tensor, ""] | float = 1.0, counts: dict[str, Tensor] | None = None
) -> dict[str, Float[Tensor, ""]]:
    """Factors that turn the sum of each term into its mean over the optimizer step.

        scale / count_i          or   1 / N_i   where `counts` gives N_i

    Args:
        reports: of this forward.
        scale: share of this forward in the optimizer step, if no counts are known.
        counts: number of values in the whole optimizer step on all ranks, by term: makes the means exact.
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
