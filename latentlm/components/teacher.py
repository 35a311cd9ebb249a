"""Teachers: a running average of the model's trainable weights, or the weights that it started from.

A teacher is a set of named buffers of the model, so it is in every checkpoint. Its forward runs the model itself with
these weights (`torch.func.functional_call`). Only trained weights are copied: with LoRA that is the adapter.
"""

from dataclasses import dataclass
from math import cos, pi
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from latentlm.distributed.fsdp import alike


@dataclass(frozen=True)
class TeacherConfig:
    """How a teacher's weights are made.

    Args:
        momentum: share kept at an update. 1: frozen; 0: the network itself, nothing is copied.
        final_momentum: momentum at the last step.
        momentum_schedule: how it is reached.
        checkpoint: folder of the checkpoint that it starts from.
        random_seed: its weights are drawn at random with this seed, in place of those of the network.
        heads: names of the shared heads that are copied as well.
        lm_head: the network's output head is copied as well, because a term makes logits of the teacher's latents.
        refresh_every: copy everything again every so many optimizer steps; 0: never.
    """

    momentum: float = 1.0
    final_momentum: float | None = None
    momentum_schedule: Literal["cosine", "linear"] = "cosine"
    checkpoint: str | None = None
    random_seed: int | None = None
    heads: tuple[str, ...] = ()
    lm_head: bool = False
    refresh_every: int = 0

    @property
    def copies_all(self) -> bool:
        """Whether it also has a copy of what is not trained: it is another network."""
        return self.checkpoint is not None or self.random_seed is not None

    @property
    def copies(self) -> bool:
        """Whether there is anything to copy."""
        return self.momentum > 0 or self.final_momentum is not None

    def at(self, step: int, total: int | None) -> float:
        """Momentum of an optimizer step."""
        if self.final_momentum is None:
            return self.momentum
        if total is None:
            raise ValueError(
                "ema: final_momentum needs the number of steps; use LatentTrainer or set "
                "latentlm.latent_state(model).steps.total"
            )
        share = min(step / total, 1)
        left = 1 - share if self.momentum_schedule == "linear" else (1 + cos(pi * share)) / 2
        return self.final_momentum - (self.final_momentum - self.momentum) * left


class Teacher(nn.Module):
    """Copies of the weights in `weights`, updated by ``copy <- momentum copy + (1 - momentum) weight``.

    Args:
        config: how they are made.
    """

    def __init__(self, config: TeacherConfig):
        super().__init__()
        self.config = config
        self.frozen = config.momentum == 1 and config.final_momentum in (None, 1)

    def start(self, weights: dict[str, Tensor]) -> None:
        """Make the first copies. Those restored from a checkpoint are only moved to the device, or cut into shards."""
        shard = next((weight for weight in weights.values() if isinstance(weight, DTensor)), None)
        for name, weight in weights.items():
            copy = self._buffers.get(_key(name))
            if copy is None:
                # float32: in bf16 the step (1 - momentum) * difference would round away
                dtype = weight.dtype if self.frozen else torch.promote_types(weight.dtype, torch.float32)
                # a unit of FSDP whose forward has begun shows whole weights: cut again
                self.register_buffer(_key(name), alike(weight, shard).detach().to(dtype, copy=True))
            elif copy.device != weight.device or (isinstance(weight, DTensor) and not isinstance(copy, DTensor)):
                self._buffers[_key(name)] = alike(copy.to(weight.device), weight)

    def has(self, weights: dict[str, Tensor]) -> bool:
        """Whether each of them has a copy."""
        return all(_key(name) in self._buffers for name in weights)

    @torch.no_grad()
    def update(self, weights: dict[str, Tensor], step: int = 0, total: int | None = None) -> None:
        """Update every copy."""
        for name, weight in weights.items():
            copy = self._buffers[_key(name)]
            if isinstance(weight, DTensor) and copy is not None and not isinstance(copy, DTensor):
                # taken inside a unit of FSDP, which shows whole weights there; an optimizer steps shards
                self._buffers[_key(name)] = alike(copy, weight)
        renewed = self.config.refresh_every and step % self.config.refresh_every == 0
        if self.frozen and not renewed:
            return
        momentum = 0.0 if renewed else self.config.at(step, total)
        for name, weight in weights.items():
            copy = self._buffers[_key(name)]
            copy.lerp_(alike(weight, copy).detach().to(copy.dtype), 1 - momentum)  # type: ignore[union-attr]

    def weights(self, like: dict[str, Tensor]) -> dict[str, Tensor]:
        """The copies, in the dtypes of the weights `like`."""
        return {name: self._buffers[_key(name)].to(weight.dtype) for name, weight in like.items()}  # type: ignore[union-attr]

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # a teacher starts at the first step, so a fresh model has no buffers to load a checkpoint into
        for name, value in state_dict.items():
            if name.startswith(prefix) and name.removeprefix(prefix) not in self._buffers:
                self.register_buffer(name.removeprefix(prefix), torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _key(name: str) -> str:
    return name.replace(".", "/")  # a buffer's name cannot hold a dot


def trained(decoder: nn.Module, above: list[nn.Module], every: bool = False) -> dict[str, Tensor]:
    """Trainable (or `every`) weights of the decoder, leaving out the modules `above` the deepest target."""
    skipped = {id(weight) for block in above for weight in block.parameters()}
    return {n: w for n, w in decoder.named_parameters() if (every or w.requires_grad) and id(w) not in skipped}
