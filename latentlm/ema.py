"""Teachers that live inside the model: a running average of its trainable weights, or the weights it began with.

A teacher is a set of named buffers, so checkpoints carry it. It is swapped in for a forward by
`torch.func.functional_call`, so nothing is copied that is not trained: with LoRA that is the adapter.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    """Copies of the weights in `weights`, updated by ``copy <- momentum copy + (1 - momentum) weight``.

    Args:
        momentum: share kept at an update; 1 freezes.
    """

    def __init__(self, momentum: float):
        super().__init__()
        self.momentum = momentum

    def start(self, weights: dict[str, Tensor]) -> None:
        """Take the first copies; names already restored from a checkpoint are left alone."""
        for name, weight in weights.items():
            if _key(name) not in self._buffers:
                # float32: in bf16 the step (1 - momentum) * difference would round away
                self.register_buffer(_key(name), weight.detach().float().clone())

    @torch.no_grad()
    def update(self, weights: dict[str, Tensor]) -> None:
        """Move every copy towards its weight."""
        if self.momentum == 1:
            return
        for name, weight in weights.items():
            self._buffers[_key(name)].lerp_(weight.detach().float(), 1 - self.momentum)  # type: ignore[union-attr]

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
    """Tells when an optimizer step has happened, whoever ran it, by the version counters of the weights."""

    def __init__(self):
        self._seen: tuple[int, ...] | None = None

    def ticked(self, weights: Iterator[Tensor]) -> bool:
        """Whether a weight was written to since the last call; the first call only looks."""
        versions = tuple(weight._version for weight in weights)
        before, self._seen = self._seen, versions
        return before is not None and before != versions
