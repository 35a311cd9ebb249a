"""Gradient accumulation, seen from inside the model: what couples samples does not see it as one batch."""

import warnings
from collections.abc import Sequence
from functools import cache
from weakref import WeakSet

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook


def warn_coupled(names: str, seen: str) -> None:
    """Say that micro-batches are not one batch; `seen` is what shows that there are some."""
    warnings.warn(
        f"{seen}: samples of {names} meet only those of their own micro-batch; a larger batch is not the same",
        stacklevel=2,
    )


class Accumulating:
    """Notices a second backward in one optimizer step and says so once, for loops that nobody asks for their settings.

    Args:
        coupled: names of the terms and heads whose samples must meet in one forward.
    """

    def __init__(self, coupled: Sequence[str]):
        self.names = ", ".join(coupled)
        self.told = not self.names  # trainers set it, which know their own settings
        self.reached = False

    def forward(self) -> None:
        """A training forward begins, after optimizer steps have been counted."""
        if self.reached and not self.told:
            self.told = True
            warn_coupled(self.names, "a second backward before an optimizer step")
        self.reached = False

    def watch(self, loss: Tensor) -> None:
        """Notice the backward of this forward."""
        if not self.told and loss.requires_grad:
            loss.register_hook(self._backward)

    def _backward(self, grad: Tensor) -> None:
        self.reached = True


class StepClock:
    """Tells whether an optimizer has stepped on a model's weights, whoever ran it.

    Every torch optimizer reports its steps. The version counters of the weights would not do: fused optimizers leave
    them as they are, and loading a checkpoint moves them.
    """

    def __init__(self, model: nn.Module):
        self._model, self._listens, self._stepped = model, False, False
        _listen().add(self)

    def ticked(self) -> bool:
        """Whether a step was made since the last call; the first call only begins to listen."""
        ticked, self._listens, self._stepped = self._stepped, True, False
        return ticked

    def hear(self, optimizer: Optimizer) -> None:
        """An optimizer has stepped."""
        if not self._listens:
            return
        own = {id(weight) for weight in self._model.parameters() if weight.requires_grad}
        held = (weight for group in optimizer.param_groups for weight in group["params"])
        # sharding engines may step on flat copies of their own instead, which are no parameters
        self._stepped |= any(id(weight) in own or not isinstance(weight, nn.Parameter) for weight in held)


@cache
def _listen() -> WeakSet[StepClock]:
    clocks: WeakSet[StepClock] = WeakSet()

    def tell(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        for clock in clocks:
            clock.hear(optimizer)

    register_optimizer_step_post_hook(tell)
    return clocks
