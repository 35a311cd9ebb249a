"""A teacher's forward: the same decoder on the same input with other weights, stopped at the deepest target."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from latentlm.backbones.load import load_weights
from latentlm.components.teacher import trained
from latentlm.distributed.fsdp import alike, call_with, norm

HEAD = "latent.terms.heads."
SLOW = "slow copy"  # in the logs: no term can be called so


class Reached(Exception):  # noqa: N818 - not an error: the deepest target has been read
    """Ends a teacher's forward."""


def follow(run: Any, kind: str, ticked: bool) -> None:
    """Let a teacher take its first copies, and average after an optimizer step."""
    if _switches_adapters(run, kind):
        return
    latent = run.model.latent
    teacher, weights = latent.teachers[kind], _copied(run, kind)
    folder = teacher.teacher_config.checkpoint
    teacher.start(weights if folder is None or teacher.has(weights) else _loaded(run, folder, weights))
    if ticked:
        teacher.update(weights, latent.step, run.total)


@torch.no_grad()
def teacher_health(run: Any) -> dict[str, float]:
    """Of a slow copy: its ``momentum``, and how far it ``lag``s, ``|weights - copies| / |copies|``."""
    teachers = run.model.latent.teachers
    if "ema" not in teachers or not teachers["ema"].teacher_config.copies:
        return {}
    teacher = teachers["ema"]
    own = _copied(run, "ema")
    copies = teacher.weights(own)
    apart = torch.stack([norm(alike(own[name], copies[name]) - copies[name]) for name in own]).norm()
    size = torch.stack([norm(copy) for copy in copies.values()]).norm()
    momentum = teacher.teacher_config.at(run.model.latent.step, run.total)
    return {f"monitor/{SLOW}/momentum": momentum, f"monitor/{SLOW}/lag": float(apart / size.clamp(min=1e-12))}


def teacher_states(run: Any, kind: str, args: tuple, kwargs: dict) -> None:
    """Fill ``run.teachers[kind]`` with the states that its targets read."""
    decoder = run.backbone.decoder
    run.teachers[kind] = {}
    if "use_cache" in kwargs:
        kwargs = kwargs | {"use_cache": False}
    switched = _adapters(decoder) if _switches_adapters(run, kind) else []
    weights = {} if switched else _weights(run, kind)
    if run.backbone.grid is not None:
        args, kwargs = _taught(run, args, kwargs)
    run.reading = kind
    try:
        with torch.no_grad(), _evaluating(decoder), _switched_off(switched):
            call_with(decoder, {n: w for n, w in weights.items() if not n.startswith(HEAD)}, args, kwargs)
    except Reached:
        pass
    finally:
        run.reading = None


def _taught(run: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """The call with the images that teachers look at."""
    latent = run.call.latent or {}
    if args:
        return (run.backbone.grid.taught(args[0], latent), *args[1:]), kwargs
    return args, kwargs | {"pixel_values": run.backbone.grid.taught(kwargs["pixel_values"], latent)}


def teacher_heads(run: Any, kind: str) -> dict[str, Callable]:
    """The shared heads with the teacher's weights."""
    latent = run.model.latent
    names = latent.teachers[kind].teacher_config.heads
    return {name: partial(_copy_of, run, kind, latent.terms.heads[name], f"{HEAD}{name}.") for name in names}


def teacher_norm(run: Any, kind: str | None) -> Callable:
    """The final norm, of the network itself (None) or with a teacher's weights."""
    norm = run.backbone.decoder.get_submodule(run.norm)
    if kind is None or _switches_adapters(run, kind):
        return norm
    return partial(_copy_of, run, kind, norm, f"{run.norm}.")


def _copy_of(run: Any, kind: str, module: nn.Module, prefix: str, values: Tensor) -> Tensor:
    """Call a module with the teacher's weights."""
    like = {name: weight for name, weight in _copied(run, kind).items() if name.swapcase().startswith(prefix)}
    weights = run.model.latent.teachers[kind].weights(like)
    own = {name.swapcase().removeprefix(prefix): weight for name, weight in weights.items()}
    dtype = next((weight.dtype for weight in own.values()), values.dtype)
    return call_with(module, own, (values.to(dtype),))


def _weights(run: Any, kind: str) -> dict[str, Tensor]:
    copies = run.model.latent.teachers[kind].weights(_copied(run, kind))
    return {name.swapcase(): copy for name, copy in copies.items()}


def _copied(run: Any, kind: str) -> dict[str, Tensor]:
    """Trainable weights up to the deepest target, and those of the heads that the teacher has copies of.

    Under names in swapped case: on saving, transformers renames and splits whatever in the model looks like the weights
    of some released checkpoint, and would do so with a teacher's copies.
    """
    latent, backbone = run.model.latent, run.backbone
    teacher_config = latent.teachers[kind].teacher_config
    if not teacher_config.copies:
        return {}
    above = [*backbone.layers[max(run.wanted[kind]) :], latent]  # a ViT is its own decoder and has the heads inside
    weights = trained(backbone.decoder, above, every=teacher_config.checkpoint is not None)
    for head in teacher_config.heads:
        weights |= {f"{HEAD}{head}.{n}": weight for n, weight in latent.terms.heads[head].named_parameters()}
    if any(hasattr(weight, "ds_shape") for weight in weights.values()):
        # ZeRO-3 gathers by itself and would put the network's own weights back into the teacher's forward
        raise ValueError(f"target {kind}: ZeRO-3 keeps the weights to itself; use FSDP2, ZeRO-2, DDP or target online")
    return {name.swapcase(): weight for name, weight in weights.items()}


def _loaded(run: Any, folder: str, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights of another checkpoint."""
    # compared and kept in the network's own type, whatever that of the files
    other = dict(load_weights(type(run.backbone.decoder), folder, dtype=torch.float32, part=True).named_parameters())
    found = {name: other.get(name.swapcase()) for name in like}
    for name, weight in found.items():
        if weight is None or weight.shape != like[name].shape:
            have = "none" if weight is None else tuple(weight.shape)
            raise ValueError(
                f"target frozen: {folder} is no checkpoint of this network ({name.swapcase()} is {have}, not "
                f"{tuple(like[name].shape)}); name one with the same config"
            )
    return {n: alike(w.detach().to(like[n].device, like[n].dtype), like[n]) for n, w in found.items() if w is not None}


def _switches_adapters(run: Any, kind: str) -> bool:
    """Under PEFT the network as it was is the one without adapters: nothing need be copied, unless it is renewed."""
    renewed = run.model.latent.teachers[kind].teacher_config.refresh_every
    return kind == "frozen" and not renewed and bool(_adapters(run.backbone.decoder))


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
