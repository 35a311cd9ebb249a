"""A teacher's forward: the same decoder on the same input with other weights, stopped at the deepest target."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.func import functional_call

from latentlm.ema import trained


class Reached(Exception):  # noqa: N818 - not an error: the deepest target has been read
    """Ends a teacher's forward."""


def follow(run: Any, kind: str, ticked: bool) -> None:
    """Let a teacher take its first copies, and average after an optimizer step."""
    if _switches_adapters(run, kind):
        return
    teacher, weights = run.model.latent.teachers[kind], _copied(run, kind)
    teacher.start(weights)
    if ticked:
        teacher.update(weights)


def teacher_states(run: Any, kind: str, args: tuple, kwargs: dict) -> None:
    """Fill ``run.teachers[kind]`` with the states that its targets read."""
    decoder = run.backbone.decoder
    run.teachers[kind] = {}
    if "use_cache" in kwargs:
        kwargs = kwargs | {"use_cache": False}
    switched = _adapters(decoder) if _switches_adapters(run, kind) else []
    weights = {} if switched else run.model.latent.teachers[kind].weights(_copied(run, kind))
    run.reading = kind
    try:
        with torch.no_grad(), _evaluating(decoder), _switched_off(switched):
            functional_call(decoder, {name.swapcase(): copy for name, copy in weights.items()}, args, kwargs)
    except Reached:
        pass
    finally:
        run.reading = None


def _copied(run: Any, kind: str) -> dict[str, Tensor]:
    """Trainable weights up to the deepest target.

    Under names in swapped case: on saving, transformers renames and splits whatever in the model looks like the weights
    of some released checkpoint, and would do so with a teacher's copies.
    """
    weights = trained(run.backbone.decoder, run.backbone.layers[max(run.wanted[kind]) :])
    if any(isinstance(weight, DTensor) or hasattr(weight, "ds_shape") for weight in weights.values()):
        # an engine that gathers weights by itself would put the network's own ones back into the teacher's forward
        raise ValueError(f"target {kind}: needs whole weights to copy, but these are sharded; use DDP or target online")
    return {name.swapcase(): weight for name, weight in weights.items()}


def _switches_adapters(run: Any, kind: str) -> bool:
    """Under PEFT the network as it was is the network without adapters: nothing need be copied."""
    return kind == "frozen" and bool(_adapters(run.backbone.decoder))


def _adapters(decoder: nn.Module) -> list[Any]:
    """PEFT's layers in the decoder; nothing is imported to find that there are none."""
    homes = [("peft.tuners.tuners_utils", "BaseTunerLayer"), ("peft.utils.other", "AuxiliaryTrainingWrapper")]
    classes = tuple(getattr(sys.modules[home], name) for home, name in homes if home in sys.modules)
    return [module for module in decoder.modules() if isinstance(module, classes)]


@contextmanager
def _switched_off(adapters: list[Any]) -> Iterator[None]:
    on = [layer for layer in adapters if not layer.disable_adapters]
    for layer in on:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in on:
            layer.enable_adapters(True)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout, each module's own mode restored."""
    on = [child for child in module.modules() if child.training]
    for child in on:
        object.__setattr__(child, "training", False)  # nn.Module's own way is slow, and adapters are many modules
    try:
        yield
    finally:
        for child in on:
            object.__setattr__(child, "training", True)
