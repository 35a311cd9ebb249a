"""Losses compute in float32 or better, whatever the precision of the model; what autocast must not keep."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def full_precision(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Hand `function` its floating tensors in at least float32, with autocast off.

    Exponentials, squares and means over many samples lose their accuracy in half precision, and autocast would bring
    the matrix products back to it. float64 stays float64, so that gradients can be checked numerically.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        devices = {value.device.type for value in (*args, *kwargs.values()) if isinstance(value, Tensor)}
        with torch.autocast(devices.pop(), enabled=False):
            return function(*map(_promote, args), **{key: _promote(value) for key, value in kwargs.items()})  # pyright: ignore[reportCallIssue]

    return run


@contextmanager
def without_gradient() -> Iterator[None]:
    """`torch.no_grad` for modules that are trained elsewhere in the same forward.

    Autocast keeps the weights that it casts, and torch 2.9 hands one that was cast without gradient to the call that
    should train it (pytorch issue 65766), so that it gets no gradient at all: none is kept here.
    """
    keeps = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(keeps)


def _promote(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.promote_types(value.dtype, torch.float32))
    return value
