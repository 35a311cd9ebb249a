"""Assignments: from a target's logits over prototypes to a distribution that is not the same prototype for all inputs.

They return log-probabilities, which are logits too: soft_cross_entropy takes them with a target temperature of 1.
Letters: ``k`` prototypes, ``M`` rows of all ranks.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentlm.distributed.collectives import all_reduce_count, all_reduce_sum
from latentlm.losses import sinkhorn


@dataclass(frozen=True)
class LinearSchedule:
    """A temperature that changes linearly.

    Args:
        start, end: at step 0, and from step `steps` on.
        steps: optimizer steps in between.
    """

    start: float
    end: float
    steps: int

    def __post_init__(self):
        if min(self.start, self.end) <= 0 or self.steps < 1:
            raise ValueError(f"temperature: start and end must be above 0, steps 1 or more; got {self}")


Temperature = float | LinearSchedule


def temperature_at(temperature: Temperature, step: int) -> float:
    """The temperature of an optimizer step."""
    if not isinstance(temperature, LinearSchedule):
        return temperature
    share = min(step / temperature.steps, 1.0)
    return temperature.start + share * (temperature.end - temperature.start)


def _check(temperature: Temperature) -> None:
    if not isinstance(temperature, LinearSchedule) and temperature <= 0:
        raise ValueError(f"temperature: {temperature}; it must be above 0")


@dataclass(frozen=True)
class Center:
    """Subtract a running centre, then sharpen by a temperature.

        log q_i = log softmax((l_i - c) / T),   c <- momentum c + (1 - momentum) mean_M l   after every optimizer step

    Shapes:    [m k] -> [m k] log-probabilities; rows are the term's pairs.
    Gradient:  none.
    Scale:     entropy between 0 (one prototype each) and log k.
    Ranks:     the mean is over the rows of all ranks and micro-batches of a step. All use the centre of the step
               before, so accumulation is exact. The centre is a buffer, saved with the heads; it starts at 0.
    Source:    Caron et al. 2021 (DINO), arXiv:2104.14294, sec. 3.1 and eq. 4. Differs: updated once per optimizer
               step; the official code updates it in each forward.
    Checked:   tests/components/test_assignments.py - naive float64 loop over steps; 2 ranks == 1; continues from a
               checkpoint.

    Args:
        temperature: a number or a schedule (DINO: 0.04 to 0.07).
        momentum: share of the centre that is kept.
    """

    temperature: Temperature = 0.04
    momentum: float = 0.9
    per_position_of: ClassVar[None] = None
    per_sample: ClassVar[bool] = True

    def __post_init__(self):
        _check(self.temperature)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"center: momentum must lie in 0..1 and below 1, got {self.momentum}")

    def build(self, dim: int) -> nn.Module:
        """The centre of `dim` prototypes."""
        return _Center(self, dim)


@dataclass(frozen=True)
class Sinkhorn:
    """Balanced assignments: every prototype is used about equally often.

        log q = log sinkhorn(l / T)   over the term's pairs, or at each position of a set by itself

    Shapes:    [*g m k] -> [*g m k] log-probabilities; each leading index is balanced by itself.
    Gradient:  none.
    Scale:     entropy between 0 and log k; the fewer rows there are per prototype, the fewer prototypes are shared.
    Ranks:     balanced over the rows of all ranks, whose counts may differ; each micro-batch is balanced by itself.
    Source:    Caron et al. 2020 (SwAV), arXiv:2006.09882, sec. 3.1, as in DINOv2, arXiv:2304.07193; `per_position_of`:
               Darcet et al. 2025 (CAPI), arXiv:2502.08769, sec. 3.
    Checked:   tests/components/test_assignments.py, tests/losses/test_sinkhorn.py - naive float64 loop; position by
               position; 2 ranks == 1.

    Args:
        temperature: a number or a schedule.
        iterations: of rows and columns.
        per_position_of: name of a set that has the same positions in every anchor (``patches``). The whole set is
            assigned, balanced over the anchors at each position by itself, so that no prototype can mean a position.
            The target takes its own positions from the result.
    """

    temperature: Temperature = 0.05
    iterations: int = 3
    per_position_of: str | None = None
    per_sample: ClassVar[bool] = False

    def __post_init__(self):
        _check(self.temperature)
        if self.iterations < 1:
            raise ValueError(f"sinkhorn: iterations must be 1 or more, got {self.iterations}")

    def build(self, dim: int) -> nn.Module:
        """A module without state."""
        return _Sinkhorn(self)


Assign = Center | Sinkhorn


class _Center(nn.Module):
    center: Tensor
    total: Tensor
    count: Tensor

    def __init__(self, part: Center, dim: int):
        super().__init__()
        self.part = part
        self.register_buffer("center", torch.zeros(dim))
        self.register_buffer("total", torch.zeros(dim), persistent=False)  # of the current step
        self.register_buffer("count", torch.zeros(()), persistent=False)

    @torch.no_grad()
    def forward(self, logits: Float[Tensor, "m k"], step: int) -> Float[Tensor, "m k"]:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        self.total += all_reduce_sum(logits.sum(0)).to(self.total)
        self.count += all_reduce_count(len(logits), logits.device)
        return ((logits - self.center.to(logits)) / temperature_at(self.part.temperature, step)).log_softmax(-1)

    @torch.no_grad()
    def advance(self) -> None:
        """Update the centre after an optimizer step."""
        mean = torch.where(self.count > 0, self.total / self.count.clamp(min=1), self.center)
        self.center.lerp_(mean, 1 - self.part.momentum)
        self.total.zero_()
        self.count.zero_()


class _Sinkhorn(nn.Module):
    def __init__(self, part: Sinkhorn):
        super().__init__()
        self.part = part

    @torch.no_grad()
    def forward(self, logits: Float[Tensor, "*g m k"], step: int) -> Float[Tensor, "*g m k"]:
        return sinkhorn(logits, temperature_at(self.part.temperature, step), self.part.iterations)

    def advance(self) -> None:
        """Nothing to update."""
