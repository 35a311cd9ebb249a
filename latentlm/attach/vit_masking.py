"""Hooks in front of the blocks of a ViT: the network sees what the batch says, its teachers see everything.

As everywhere, hooks are module-level functions that find their state on the module.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from latentlm.attach.state import LatentState


def masking_hooks(state: LatentState) -> list[RemovableHandle]:
    """Register them; nothing to do for a network that reads ids."""
    grid = state.backbone.grid
    if grid is None:
        return []
    eager: Any = torch.compiler.disable
    hooks = []
    for hook, part in ((_mask, grid.projection), (_drop, grid.embeddings), (_turn, grid.rotary)):
        if part is not None:
            part.__dict__["_latent_state"] = state
            hooks.append(part.register_forward_hook(eager(hook)))
    return hooks + [layer.register_forward_pre_hook(_attend, with_kwargs=True) for layer in state.backbone.layers]


def _given(state: LatentState, name: str) -> Tensor | None:
    forward = state.collecting
    return None if forward is None or forward.teacher is not None else (forward.inputs.latent or {}).get(name)


def _mask(projection: Any, args: tuple, output: Tensor) -> Tensor | None:
    state: LatentState = projection._latent_state
    mask, grid, attachment = _given(state, "mask"), state.backbone.grid, state.attachment
    if mask is None or grid is None:
        return None
    own = grid.mask_token
    return grid.masked(output, mask, attachment.heads.mask_token if own is None else attachment.decoder_weight(own))


def _drop(embeddings: Any, args: tuple, output: Tensor) -> Tensor | None:
    state: LatentState = embeddings._latent_state
    keep, grid, forward = _given(state, "keep"), state.backbone.grid, state.forward
    if keep is None or grid is None or forward is None or forward.inputs.pixel_values is None:
        return None
    values, state.kept_attention = grid.kept(output, keep, forward.inputs.pixel_values)
    return values


def _turn(rotary: Any, args: tuple, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor] | None:
    state: LatentState = rotary._latent_state
    keep, grid = _given(state, "keep"), state.backbone.grid
    return None if keep is None or grid is None else (grid.turned(output[0], keep), grid.turned(output[1], keep))


def _attend(layer: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    # also when no forward is running: with activation checkpointing the block runs again in the backward
    state: LatentState = layer._latent_state
    mask, grid = state.kept_attention, state.backbone.grid
    if mask is None or grid is None or (state.forward is not None and state.forward.teacher is not None):
        return None
    if len(args) > 1:
        return (args[0], mask, *args[2:]), kwargs
    return args, kwargs | {grid.attention: mask}
