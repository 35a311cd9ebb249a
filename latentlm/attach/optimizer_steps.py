"""Optimizer steps, seen from inside the model: what moves with them moves when they are made, whoever makes them."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from weakref import WeakSet

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook


def warn_accumulated(names: str, shown_by: str) -> None:
    """Say that micro-batches are not one batch; `shown_by` is what shows that there are some."""
    warnings.warn(
        f"{shown_by}: samples of {names} meet only those of their own micro-batch; a larger batch is not the same",
        stacklevel=2,
    )


class AccumulationWarning:
    """Warns once when gradient accumulation is detected in a loop without a trainer of ours.

    Args:
        terms: names of the terms and heads whose samples must meet in one forward.
    """

    def __init__(self, terms: Sequence[str]):
        self.names = ", ".join(terms)
        self.warned = not self.names  # trainers set it, which know their own settings
        self.reached = False  # whether a backward was made since the last optimizer step

    def forward(self) -> None:
        """A training forward begins."""
        if self.reached and not self.warned:
            self.warned = True
            warn_accumulated(self.names, "a second backward before an optimizer step")
        self.reached = False

    def watch(self, loss: Tensor) -> None:
        """Notice the backward of this forward."""
        if not self.warned and loss.requires_grad:
            loss.register_hook(self._backward)

    def _backward(self, grad: Tensor) -> None:
        self.reached = True


class StepTracker:
    """Notices the optimizer steps on a model's weights and calls `advance` once for each.

    Every torch optimizer reports its steps. Version counters of the weights would not do: fused optimizers leave them
    as they are, and loading a checkpoint moves them. A step is counted when every weight with a gradient has been
    stepped, so that several optimizers make one step. An engine that steps flat copies writes the weights back later:
    its steps are counted by `settle`, which our trainers call at the end of a step, or by the next training forward.

    Args:
        model: whose weights.
        advance: called after each step.
        batch_terms: names of the terms and heads whose samples must meet in one forward.

    Attributes:
        counts: set by a trainer: what each term averages over in this optimizer step.
        num_items: set by a trainer: label tokens of this optimizer step.
        total: optimizer steps in all, for what moves along a schedule.
        accumulation: warns of it where it changes the loss.
        pending_backward: whether a latent loss that is not in ``outputs.loss`` still waits for its backward.
        without_terms: whether the last step was made without that backward.
    """

    def __init__(self, model: nn.Module, advance: Callable[[], None], batch_terms: Sequence[str]):
        self.counts: dict[str, Tensor] | None = None
        self.num_items: Tensor | int | None = None
        self.total: int | None = None
        self.accumulation = AccumulationWarning(batch_terms)
        self.pending_backward = self.without_terms = False
        self._model, self._advance = model, advance
        self._listening = self._stepped = self._in_evaluation = False
        self._weights: set[int] = set()  # already stepped
        self._left: list[str] = []  # weights of the heads that were not, though they have a gradient

    def begin(self) -> None:
        """A training forward begins; only the step after one is counted."""
        self.settle()
        if self.without_terms:
            self.without_terms = False
            raise ValueError(
                "latent terms: the last step was made without them, no backward went through outputs.latent_loss; "
                "use LatentTrainer (no label smoothing, no compute_loss_func) or add it to your own loss"
            )
        _trackers().add(self)
        self._listening, self._in_evaluation = True, False
        self.accumulation.forward()

    def begin_without_terms(self) -> None:
        """A forward with gradient begins in evaluation mode, in which no term runs; a step after it is refused."""
        _trackers().add(self)
        self._in_evaluation = not self._listening

    def settle(self) -> None:
        """Count a step that was made and could not be counted at once."""
        if not self._stepped:
            return
        left, self._left = self._left, []
        if left:
            raise ValueError(
                f"latent heads: {len(left)} of their weights are in no optimizer ({left[0]}); build it after the heads "
                "are attached, over model.parameters()"
            )
        self._count()

    def hear(self, optimizer: Optimizer) -> None:
        """An optimizer has stepped."""
        if not (self._listening or self._in_evaluation):
            return
        named = {id(weight): (name, weight) for name, weight in self._model.named_parameters() if weight.requires_grad}
        own = {key: weight for key, (_, weight) in named.items()}
        held = [weight for group in optimizer.param_groups for weight in group["params"]]
        mine = own.keys() & {id(weight) for weight in held}
        flat = any(not isinstance(weight, nn.Parameter) for weight in held)
        if not mine and not flat:
            return
        if not self._listening:
            if not mine and not _in_buffers(own.values()):
                return  # a tensor of somebody's own: an input, or the copies of another model
            self._in_evaluation = False
            raise ValueError(
                "latent terms: a step was made in evaluation mode, in which none of them runs; call model.train() first"
            )
        self._stepped = True
        self._weights |= mine
        left = [name for key, (name, weight) in named.items() if weight.grad is not None and key not in self._weights]
        self._left = [] if flat else [name for name in left if "latent." in name]
        if not flat and not left:
            self._count()

    def backward_reached(self, grad: Tensor) -> None:
        """A backward has reached the latent loss that is not in ``outputs.loss``."""
        self.pending_backward = False

    def _count(self) -> None:
        self._listening = self._stepped = False
        self._weights = set()
        self.accumulation.reached = False
        self.without_terms = self.pending_backward
        self._advance()


def _in_buffers(weights: Iterable[Tensor]) -> bool:
    """Whether an engine keeps the weights in its own buffers (DeepSpeed), of which its optimizer steps flat copies."""
    return any(
        hasattr(weight, "ds_id") or weight.untyped_storage().nbytes() > weight.numel() * weight.element_size()
        for weight in weights
    )


@cache
def _trackers() -> WeakSet[StepTracker]:
    trackers: WeakSet[StepTracker] = WeakSet()

    def tell(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        for tracker in list(trackers):
            tracker.hear(optimizer)

    register_optimizer_step_post_hook(tell)
    return trackers
