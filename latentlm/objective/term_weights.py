"""Weights of the terms at a step: schedules, and multipliers that keep a ratio of gradients."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from latentlm.distributed.collectives import all_reduce_sum
from latentlm.objective.terms import PlainTerm
from latentlm.objective.weight import schedule

RATE = 0.3  # share of the newest measurement in a multiplier set by grad_ratio


class TermWeights(nn.Module):
    """The multiplier of every term: fixed by its `Weight`, or adapted to keep its ``grad_ratio``.

        w_i <- exp( (1 - r) log w_i + r log( ratio_i |g_rest| / |g_i| ) ),   r = max(1 / measurements, 0.3)

    updated after an optimizer step whose backward was measured; g_i is the gradient of the unweighted term at its
    source state.

    Shapes:    one number for each term.
    Gradient:  none.
    Ranks:     norms are summed over ranks, so all have the same multipliers. They are saved with the heads.

    Args:
        specs: terms by name.
    """

    balance: Tensor  # multiplier and number of measurements of each term in `ratios`

    def __init__(self, specs: Mapping[str, PlainTerm]):
        super().__init__()
        self.schedules = {name: schedule(spec.weight) for name, spec in specs.items()}
        self.ratios = {name: each.grad_ratio for name, each in self.schedules.items() if each.grad_ratio}
        self.measured: dict[str, tuple[float, float]] = {}  # gradient of the unweighted term, of all the rest
        self.waiting = False  # whether a backward is being measured
        if self.ratios:
            self.register_buffer("balance", torch.tensor([[self.schedules[name].value, 0.0] for name in self.ratios]))

    def forward(self, step: int, total: int | None = None) -> dict[str, float | Tensor]:
        """Weights at an optimizer step, by term; the same for all of its forwards.

        Args:
            step: optimizer steps made so far.
            total: optimizer steps in all, where they are known.
        """
        values: dict[str, float | Tensor] = {name: each.value for name, each in self.schedules.items()}
        values |= dict(zip(self.ratios, self.balance[:, 0], strict=True)) if self.ratios else {}
        return {name: value * self._on(name, step, total) for name, value in values.items()}

    def running(self, step: int, total: int | None = None) -> frozenset[str]:
        """Terms that have to be run at an optimizer step: those that are on, or whose ratio is measured until then."""
        return frozenset(
            name
            for name, each in self.schedules.items()
            if self._on(name, step, total) or (name in self.ratios and step < each.span(total)[0])
        )

    def gone(self, step: int, total: int | None = None) -> frozenset[str]:
        """Terms that will not come on again."""
        ends = {name: each.span(total)[1] for name, each in self.schedules.items()}
        return frozenset(name for name, end in ends.items() if end is not None and step >= end)

    def _on(self, name: str, step: int, total: int | None) -> float:
        try:
            return self.schedules[name].on(step, total)
        except ValueError as error:
            raise ValueError(f"objective.terms.{name}.{error}") from error

    @torch.no_grad()
    def rebalance(self) -> None:
        """After an optimizer step: update the multipliers from what its backward measured, the same on all ranks."""
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
