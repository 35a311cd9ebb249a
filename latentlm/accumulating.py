"""Gradient accumulation, seen from inside the model: what couples samples does not see it as one batch."""

import warnings
from collections.abc import Sequence

from torch import Tensor


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
