"""Hooks in front of the blocks of a ViT: the network sees what the batch says, its teachers see everything.

As everywhere, hooks are module-level functions that find their state on the module.
"""

from typing import Any

import torch
from torch import Tensor


def selecting_hooks(run: Any) -> list[Any]:
    """Register them; nothing to do for a network that reads ids."""
    grid = run.backbone.grid
    if grid is None:
        return []
    parts = {_mask: grid.projection, _drop: grid.embeddings} | ({} if grid.rotary is None else {_turn: grid.rotary})
    for part in parts.values():
        part.__dict__["_latent_run"] = run
    hooks = [part.register_forward_hook(torch.compiler.disable(hook)) for hook, part in parts.items()]
    return hooks + [layer.register_forward_pre_hook(_attend, with_kwargs=True) for layer in run.backbone.layers]


def _given(run: Any, name: str) -> Tensor | None:
    return (run.call.latent or {}).get(name) if run.active and run.reading is None else None


def _mask(projection: Any, args: tuple, output: Tensor) -> Tensor | None:
    run = projection._latent_run
    mask = _given(run, "mask")
    if mask is None:
        return None
    own, grid = run.backbone.grid.mask_token, run.backbone.grid
    return grid.masked(output, mask, run.model.latent.mask_token if own is None else run.decoder_weight(own))


def _drop(embeddings: Any, args: tuple, output: Tensor) -> Tensor | None:
    run = embeddings._latent_run
    keep = _given(run, "keep")
    if keep is None:
        return None
    state, run.attention = run.backbone.grid.kept(output, keep, run.call.pixel_values)
    return state


def _turn(rotary: Any, args: tuple, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor] | None:
    run = rotary._latent_run
    keep = _given(run, "keep")
    return None if keep is None else tuple(run.backbone.grid.turned(part, keep) for part in output)  # type: ignore[return-value]


def _attend(layer: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    # not asked whether the run is active: with activation checkpointing the block runs again in the backward
    run = layer._latent_run
    if run.attention is None or run.reading is not None:
        return None
    if len(args) > 1:
        return (args[0], run.attention, *args[2:]), kwargs
    return args, kwargs | {run.backbone.grid.attention: run.attention}
