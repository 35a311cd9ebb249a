"""Teachers that live inside the model: a running average of its trainable weights, or the weights it began with.

A teacher is a set of named buffers, so checkpoints carry it. It is swapped in for a forward by
`torch.func.functional_call`, so nothing is copied that is not trained: with LoRA that is the adapter.
"""

from collections.abc import Iterable
from functools import cache
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook


class Teacher(nn.Module):
    """Copies of the weights in `weights`, updated by ``copy <- momentum copy + (1 - momentum) weight``.

    Args:
        momentum: share kept at an update; 1 freezes.
    """

    def __init__(self, momentum: float):
        super().__init__()
        self.momentum = momentum

    def start(self, weights: dict[str, Tensor]) -> None:
        """Take the first copies; those already restored from a checkpoint only follow to the device."""
        for name, weight in weights.items():
            copy = self._buffers.get(_key(name))
            if copy is None:
                # float32: in bf16 the step (1 - momentum) * difference would round away
                dtype = weight.dtype if self.momentum == 1 else torch.promote_types(weight.dtype, torch.float32)
                self.register_buffer(_key(name), weight.detach().to(dtype, copy=True))
            elif copy.device != weight.device:
                self._buffers[_key(name)] = copy.to(weight.device)

    @torch.no_grad()
    def update(self, weights: dict[str, Tensor]) -> None:
        """Move every copy towards its weight."""
        if self.momentum == 1:
            return
        for name, weight in weights.items():
            copy = self._buffers[_key(name)]
            copy.lerp_(weight.detach().to(copy.dtype), 1 - self.momentum)  # type: ignore[union-attr]

    def weights(self, like: dict[str, Tensor]) -> dict[str, Tensor]:
        """The copies, in the dtype of the weights they stand for."""
        return {name: self._buffers[_key(name)].to(weight.dtype) for name, weight in like.items()}  # type: ignore[union-attr]

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # a teacher starts at the first step, so a fresh model has no buffers to load a checkpoint into
        for name, value in state_dict.items():
            if name.startswith(prefix) and name.removeprefix(prefix) not in self._buffers:
                self.register_buffer(name.removeprefix(prefix), torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _key(name: str) -> str:
    return name.replace(".", "/")  # a buffer's name cannot hold a dot


def trained(decoder: nn.Module, above: list[nn.Module]) -> dict[str, Tensor]:
    """Trainable weights of the decoder, leaving out the blocks `above` the deepest target."""
    skipped = {id(weight) for block in above for weight in block.parameters()}
    return {n: w for n, w in decoder.named_parameters() if w.requires_grad and id(w) not in skipped}


class StepClock:
    """Tells whether an optimizer has stepped on some weights, whoever ran it.

    Every torch optimizer reports its steps. The version counters of the weights would not do: fused optimizers leave
    them as they are, and loading a checkpoint moves them.
    """

    def __init__(self):
        self._weights: set[int] = set()
        self._stepped = False
        _listen().add(self)

    def ticked(self, weights: Iterable[Tensor]) -> bool:
        """Whether a step was made on these weights since the last call; the first call only looks."""
        ticked, self._stepped = self._stepped, False
        self._weights = {id(weight) for weight in weights}
        return ticked

    def hear(self, optimizer: Optimizer) -> None:
        """An optimizer has stepped."""
        held = (weight for group in optimizer.param_groups for weight in group["params"])
        # sharding engines may step on flat copies of their own instead, which are no parameters
        self._stepped |= any(id(weight) in self._weights or not isinstance(weight, nn.Parameter) for weight in held)


@cache
def _listen() -> WeakSet[StepClock]:
    clocks: WeakSet[StepClock] = WeakSet()

    def tell(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        for clock in clocks:
            clock.hear(optimizer)

    register_optimizer_step_post_hook(tell)
    return clocks
