"""Weights that FSDP2 has spread over ranks: shards like other shards, and a forward with other weights in their place.

Only what torch documents is used: `FSDPModule`, `DTensor`, and the order of hooks (FSDP puts its own first).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.func import functional_call


def is_sharded(module: nn.Module) -> bool:
    """Whether FSDP2 gathers any of its weights."""
    return any(isinstance(part, FSDPModule) for part in module.modules())


def alike(value: Tensor, like: Tensor | None) -> Tensor:
    """A whole tensor, equal on all ranks, as this rank's shard where `like` is a shard; without communication."""
    if not isinstance(like, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.detach(), like.device_mesh, like.placements, src_data_rank=None)


def norm(value: Tensor) -> Tensor:
    """Length of a tensor, of the whole one where it is sharded."""
    length = value.norm()
    return length.full_tensor() if isinstance(length, DTensor) else length


def call_with(module: nn.Module, weights: dict[str, Tensor], args: tuple, kwargs: dict | None = None) -> Any:
    """`functional_call` with weights that may be shards.

    A unit of FSDP puts the module's own weights in place when its forward begins, so the others are gathered and put in
    their place right after that, unit by unit; only one unit's weights are whole in memory at a time.
    """
    shards: dict[str, Any] = {name: weight for name, weight in weights.items() if isinstance(weight, DTensor)}
    units = _units(module, shards)
    begun = {name: _gathered(shards[name], module.get_parameter(name)) for name in units.pop(None, ())}
    whole = {name: weight for name, weight in weights.items() if name not in shards}
    with _standing_in(module, units, shards):
        return functional_call(module, whole | begun, args, kwargs)


def _gathered(shard: Any, own: Tensor) -> Tensor:
    if isinstance(own, DTensor):  # still one where FSDP would have gathered it
        raise ValueError(
            "teachers: weights split by tensor parallelism cannot be copied; use FSDP2, DDP or target online"
        )
    return shard.to(own.dtype).full_tensor()


def _units(module: nn.Module, shards: dict[str, Any]) -> dict[Any, list[str]]:
    """Names of weights by the innermost unit that gathers them; None is a unit around the module, which has begun."""
    inside = {name: part for name, part in module.named_modules() if isinstance(part, FSDPModule)} if shards else {}
    units: dict[Any, list[str]] = {}
    for name in shards:
        path = name.rpartition(".")[0]
        while path and path not in inside:
            path = path.rpartition(".")[0]
        units.setdefault(inside.get(path), []).append(name)
    return units


@contextmanager
def _standing_in(module: nn.Module, units: dict[Any, list[str]], shards: dict[str, Any]) -> Iterator[None]:
    running: dict[nn.Module, list[tuple[dict, str, Tensor, Tensor]]] = {}  # where, its name there, theirs, own

    def enter(unit: nn.Module, args: tuple) -> None:
        if unit in running:
            return
        running[unit] = []
        for name in units[unit]:
            path, _, last = name.rpartition(".")
            holder: dict = module.get_submodule(path)._parameters
            own = holder[last]
            holder[last] = theirs = _gathered(shards[name], own)
            running[unit].append((holder, last, theirs, own))

    def leave(unit: nn.Module, *_: Any) -> None:
        for holder, last, theirs, own in running.pop(unit, ()):
            if holder[last] is theirs:  # else FSDP has already put the shard back
                holder[last] = own

    handles = [unit.register_forward_pre_hook(enter) for unit in units]
    handles += [unit.register_forward_hook(leave) for unit in units]
    try:
        yield
    finally:
        for unit in list(running):
            leave(unit)
        for handle in handles:
            handle.remove()
