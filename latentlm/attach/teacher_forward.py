"""A teacher's forward: the same decoder on the same input with other weights, stopped at the deepest target."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from latentlm.attach.attachment import Attachment
from latentlm.attach.forward_io import Forward
from latentlm.attach.partial_forward import teacher_part
from latentlm.backbones import head_modules, readout
from latentlm.backbones.load import load_weights
from latentlm.components.teacher import Teacher, TeacherConfig, trained
from latentlm.distributed.fsdp import alike, call_with, norm
from latentlm.losses.precision import without_gradient
from latentlm.monitor.verdicts import SLOW

HEAD = "latent.terms.heads."
LM_HEAD = "latent.lm_head."


class Reached(Exception):  # noqa: N818 - not an error: the deepest target has been read
    """Ends a teacher's forward."""


def check_momentum(attachment: Attachment, kind: str, total: int | None) -> None:
    """ValueError where a momentum moves along a number of steps that nobody has given: before the first step is made.

    A checkpoint is restored before its trainer knows that number, so this is asked of a forward alone.
    """
    _teacher(attachment, kind).config.at(0, total)


def start_teacher(attachment: Attachment, kind: str) -> None:
    """Let a teacher take its first copies; those that it has only follow to the device."""
    if _copies_nothing(attachment, kind):
        return
    teacher, weights = _teacher(attachment, kind), _copied(attachment, kind)
    other = teacher.config.copies_all and not teacher.has(weights)
    teacher.start(_of_another(attachment, teacher.config, weights) if other else weights)


def update_teacher(attachment: Attachment, kind: str, total: int | None) -> None:
    """Let a teacher follow after an optimizer step."""
    if not _copies_nothing(attachment, kind):
        _teacher(attachment, kind).update(_copied(attachment, kind), attachment.heads.step, total)


@torch.no_grad()
def teacher_health(attachment: Attachment, total: int | None) -> dict[str, float]:
    """Of an EMA teacher: its ``momentum``, and how far it ``lag``s, ``|weights - copies| / |copies|``."""
    if "ema" not in attachment.heads.teachers or not _teacher(attachment, "ema").config.copies:
        return {}
    teacher, own = _teacher(attachment, "ema"), _copied(attachment, "ema")
    copies = teacher.weights(own)
    apart = torch.stack([norm(alike(own[name], copies[name]) - copies[name]) for name in own]).norm()
    size = torch.stack([norm(copy) for copy in copies.values()]).norm()
    momentum = teacher.config.at(attachment.heads.step, total)
    return {f"monitor/{SLOW}/momentum": momentum, f"monitor/{SLOW}/lag": float(apart / size.clamp(min=1e-12))}


def teacher_states(attachment: Attachment, forward: Forward, kind: str, args: tuple, kwargs: dict) -> None:
    """Fill ``forward.teacher_states[kind]`` with the states that the targets of this teacher read."""
    decoder, grid = attachment.backbone.decoder, attachment.backbone.grid
    forward.teacher_states[kind] = {}
    if "use_cache" in kwargs:
        kwargs = kwargs | {"use_cache": False}
    copies_all, nothing = _teacher(attachment, kind).config.copies_all, _copies_nothing(attachment, kind)
    switched = _adapters(decoder) if copies_all or nothing else []
    weights = {} if nothing else _weights(attachment, kind)
    if grid is not None:  # the images that teachers look at
        pixels = forward.inputs.pixel_values
        assert pixels is not None
        args, kwargs = (), kwargs | grid.inputs(grid.taught(pixels, forward.inputs.latent or {}), None)
    part = forward.part = None if args else teacher_part(forward, attachment.specs, kind, kwargs)
    kwargs = kwargs if part is None else part.arguments(kwargs)
    forward.teacher = kind
    try:
        with without_gradient(), _evaluating(decoder), _switched_off(switched):
            call_with(decoder, {n: w for n, w in weights.items() if not n.startswith((HEAD, LM_HEAD))}, args, kwargs)
    except Reached:
        pass
    finally:
        forward.teacher, forward.part = None, None
    if part is not None:
        states = forward.teacher_states[kind]
        forward.teacher_states[kind] = {depth: part.back(state) for depth, state in states.items()}


def teacher_heads(attachment: Attachment, kind: str) -> dict[str, Callable]:
    """The shared heads with the teacher's weights."""
    heads = attachment.heads.terms.heads
    names = _teacher(attachment, kind).config.heads
    return {name: partial(_copy_of, attachment, kind, heads[name], f"{HEAD}{name}.") for name in names}


def teacher_norm(attachment: Attachment, kind: str | None) -> Callable:
    """The final norm, of the network itself (None) or with a teacher's weights."""
    assert attachment.norm is not None
    norm = attachment.backbone.decoder.get_submodule(attachment.norm)
    if kind is None or _copies_nothing(attachment, kind):
        return norm
    return partial(_copy_of, attachment, kind, norm, f"{attachment.norm}.")


def teacher_embed(attachment: Attachment, kind: str | None) -> Callable:
    """The input embeddings of a language model: those of the network itself, but for a random network its own."""
    embed = attachment.model.get_input_embeddings()
    if kind != "random":
        return embed
    name = next(name for name, part in attachment.backbone.decoder.named_modules() if part is embed)
    return partial(_copy_of, attachment, kind, embed, f"{name}.")


def teacher_readout(attachment: Attachment, kind: str | None) -> Callable[[Tensor], Tensor]:
    """The output head, of the network itself (None) or with a teacher's weights where one decodes its latents."""
    model = attachment.model
    if kind is None or not _teacher(attachment, kind).config.lm_head:
        return readout(model)
    if _copies_nothing(attachment, kind):
        adapters = [layer for module in head_modules(model) for layer in _adapters(module)]
        return partial(_without, adapters, readout(model)) if adapters else readout(model)
    own = {id(weight) for module in head_modules(model) for weight in module.parameters()}
    copied = {name: weight for name, weight in _copied(attachment, kind).items() if id(weight) in own}
    copies = _teacher(attachment, kind).weights(copied)
    return readout(model, {id(weight): copies[name] for name, weight in copied.items()})


def _without(adapters: list[Any], read: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor:
    with _switched_off(adapters):
        return read(latents)


def _teacher(attachment: Attachment, kind: str) -> Teacher:
    return attachment.heads.teachers[kind]  # type: ignore[return-value]


def _copy_of(attachment: Attachment, kind: str, module: nn.Module, prefix: str, values: Tensor) -> Tensor:
    """Call a module with the teacher's weights."""
    copied = _copied(attachment, kind)
    like = {name: weight for name, weight in copied.items() if name.swapcase().startswith(prefix)}
    weights = _teacher(attachment, kind).weights(like)
    own = {name.swapcase().removeprefix(prefix): weight for name, weight in weights.items()}
    if values.is_floating_point():  # embeddings are given ids
        values = values.to(next((weight.dtype for weight in own.values()), values.dtype))
    return call_with(module, own, (values,))


def _weights(attachment: Attachment, kind: str) -> dict[str, Tensor]:
    copies = _teacher(attachment, kind).weights(_copied(attachment, kind))
    return {name.swapcase(): copy for name, copy in copies.items()}


def _copied(attachment: Attachment, kind: str) -> dict[str, Tensor]:
    """Trainable weights up to the deepest target, and those of the heads that the teacher has copies of.

    Under names in swapped case: on saving, transformers renames and splits whatever in the model looks like the weights
    of some released checkpoint, and would do so with a teacher's copies.
    """
    heads, backbone = attachment.heads, attachment.backbone
    config = _teacher(attachment, kind).config
    if not config.copies:
        return {}
    # a ViT is its own decoder and has the heads inside
    above = [*backbone.layers[max(attachment.blocks[kind]) :], attachment.model.latent]
    weights = trained(backbone.decoder, above, every=config.copies_all)
    if config.lm_head:
        every = config.copies_all
        weights |= {n: w for n, w in _lm_head(attachment.model, weights) if w.requires_grad or every}
    if config.copies_all:
        added = _added(attachment.model)
        weights = {name: weight for name, weight in weights.items() if id(weight) not in added}
    for head in config.heads:
        weights |= {f"{HEAD}{head}.{n}": weight for n, weight in heads.terms.heads[head].named_parameters()}
    if any(hasattr(weight, "ds_shape") for weight in weights.values()):
        # ZeRO-3 gathers by itself and would put the network's own weights back into the teacher's forward
        raise ValueError(f"target {kind}: ZeRO-3 keeps the weights to itself; use FSDP2, ZeRO-2, DDP or target online")
    return {name.swapcase(): weight for name, weight in weights.items()}


def _of_another(attachment: Attachment, config: TeacherConfig, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights of another network of this architecture, from a checkpoint or drawn at random."""
    if config.checkpoint is not None:
        # compared and kept in the network's own type, whatever that of the files
        model, decoder = attachment.model, attachment.backbone.decoder
        has_head = any(name.swapcase().startswith(LM_HEAD) for name in like)
        kind = type(model if has_head else decoder)
        found_there = load_weights(kind, config.checkpoint, dtype=torch.float32, part=True)
        if has_head:
            inside = next(name for name, part in model.named_modules() if part is decoder)
            other = dict(found_there.get_submodule(inside).named_parameters()) | dict(_lm_head(found_there, {}))
        else:
            other = dict(found_there.named_parameters())
    else:
        other = _drawn(attachment, config)
    found = {
        name: other.get(name.swapcase().replace(".base_layer.", ".").replace(".original_module.", ".")) for name in like
    }
    for name, weight in found.items():
        if weight is None or weight.shape != like[name].shape:
            have = "none" if weight is None else tuple(weight.shape)
            what = f"frozen: {config.checkpoint}" if config.checkpoint else "random: what its config makes"
            raise ValueError(
                f"target {what} is not a checkpoint of this network ({name.swapcase()} is {have}, not "
                f"{tuple(like[name].shape)}); name one with the same config"
            )
    return {n: alike(w.detach().to(like[n].device, like[n].dtype), like[n]) for n, w in found.items() if w is not None}


def _lm_head(model: Any, have: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Weights of the output head that are not in `have`, as tied embeddings are, under names of their own."""
    known = {id(weight) for weight in have.values()}
    for i, module in enumerate(head_modules(model)):
        for name, weight in module.named_parameters():
            if id(weight) not in known:
                yield f"{LM_HEAD}{i}.{name}", weight


def _drawn(attachment: Attachment, config: TeacherConfig) -> dict[str, Tensor]:
    """Weights of a fresh network and of fresh heads; the global random state is left alone."""
    decoder = attachment.backbone.decoder
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(config.random_seed or 0)
        other: dict[str, Tensor] = dict(type(decoder)(deepcopy(decoder.config)).named_parameters())
        if config.lm_head:
            other |= dict(_lm_head(type(attachment.model)(deepcopy(attachment.model.config)), {}))
        for name in config.heads:
            head = attachment.objective.heads[name].build(attachment.backbone.dim)
            other |= {f"{HEAD}{name}.{key}": weight for key, weight in head.named_parameters()}
    return other


def _copies_nothing(attachment: Attachment, kind: str) -> bool:
    """Under PEFT the network as it was is the one without adapters: nothing need be copied, unless it is renewed."""
    config = _teacher(attachment, kind).config
    own = kind == "frozen" and not config.refresh_every and not config.copies_all
    return own and bool(_adapters(attachment.backbone.decoder))


def _added(network: nn.Module) -> set[int]:
    """Identities of the weights that adapters have added to the network's own."""
    found: set[int] = set()
    for layer in _adapters(network):
        own = layer.original_module if hasattr(layer, "original_module") else layer.get_base_layer()
        found |= {id(weight) for weight in layer.parameters()} - {id(weight) for weight in own.parameters()}
    return found


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
