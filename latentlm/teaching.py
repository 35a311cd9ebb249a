"""A teacher's forward: the same decoder on the same input with other weights, stopped at the deepest target."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from latentlm.ema import trained


class Reached(Exception):  # noqa: N818 - not an error: the deepest target has been read
    """Ends a teacher's forward."""


def teacher_states(run: Any, kind: str, args: tuple, kwargs: dict) -> None:
    """Fill ``run.teachers[kind]`` with the states that its targets read."""
    decoder, teacher = run.backbone.decoder, run.model.latent.teachers[kind]
    deepest = max(run.wanted[kind])
    run.teachers[kind] = {}
    if "use_cache" in kwargs:
        kwargs = kwargs | {"use_cache": False}
    adapters = list(_adapters(decoder)) if kind == "frozen" else []
    weights = {} if adapters else teacher.weights(trained(decoder, run.backbone.layers[deepest:]))
    run.reading = kind
    try:
        with torch.no_grad(), _evaluating(decoder), _switched_off(adapters) if adapters else nullcontext():
            functional_call(decoder, weights, args, kwargs)
    except Reached:
        pass
    finally:
        run.reading = None


def _adapters(decoder: nn.Module) -> Iterator[Any]:
    """PEFT's layers in the decoder; nothing is imported to find that there are none."""
    tuners = sys.modules.get("peft.tuners.tuners_utils")
    if tuners is not None:
        yield from (module for module in decoder.modules() if isinstance(module, tuners.BaseTunerLayer))


@contextmanager
def _switched_off(adapters: list[Any]) -> Iterator[None]:
    for layer in adapters:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in adapters:
            layer.enable_adapters(True)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout, each module's own mode restored."""
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, mode in modes:
            child.training = mode
