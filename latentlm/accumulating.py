"""Gradient accumulation, seen from inside the model: terms that couple samples do not see it as one batch."""

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def coupled(terms: Mapping[str, Any]) -> str:
    """Names of the terms whose samples must meet in one forward."""
    return ", ".join(name for name, term in terms.items() if not term.decomposable)


def warn_coupled(names: str, seen: str) -> None:
    """Say that micro-batches are not one batch; `seen` is what shows that there are some."""
    warnings.warn(
        f"{seen}: samples of {names} meet only those of their own micro-batch; a larger batch is not the same",
        stacklevel=2,
    )


class Accumulating:
    """Notices a second backward in one optimizer step and says so once, for loops that nobody asks for their settings.

    Args:
        terms: of the objective.
    """

    def __init__(self, terms: Mapping[str, Any]):
        self.names = coupled(terms)
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
