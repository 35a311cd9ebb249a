"""Hooks in front of the blocks of a ViT: the network sees what the batch says, its teachers see everything.

As everywhere, hooks are module-level functions that find their state on the module.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from latentlm.attach.forward_io import Forward
from latentlm.attach.state import Kept, LatentState
from latentlm.backbones import hidden_state


def masking_hooks(state: LatentState) -> list[RemovableHandle]:
    """Register them; nothing to do for a network that reads ids."""
    grid = state.backbone.grid
    if grid is None:
        return []
    eager: Any = torch.compiler.disable
    hooks = []
    parts = [(_mask, grid.projection), (_drop, grid.embeddings), (_turn, grid.rotary)]
    for hook, part in (*parts, *((_bias, part) for part in grid.relative)):
        if part is not None:
            part.__dict__["_latent_state"] = state
            hooks.append(part.register_forward_hook(eager(hook)))
    return hooks + [layer.register_forward_pre_hook(_attend, with_kwargs=True) for layer in state.backbone.layers]


def local_states(state: LatentState, forward: Forward, decoder: nn.Module, kwargs: dict[str, Any]) -> None:
    """Fill ``forward.local_states``; small views are seen whole, with the weights and the mode of the network itself.

    Its states stay in the graph, so the small views train the network as the large ones do (Caron et al. 2020, SwAV,
    arXiv:2006.09882: multi-crop).
    """
    grid, pixels = state.backbone.grid, (forward.inputs.latent or {}).get("local_pixels")
    if grid is None or pixels is None:
        return
    forward.in_local_views = True
    try:
        decoder(**kwargs | grid.inputs(pixels, None))
    except (RuntimeError, ValueError, AssertionError) as error:
        high, wide = pixels.shape[-2:]
        raise ValueError(
            f"data.views.local_size: {type(decoder).__name__} cannot read views of {high} x {wide} "
            f"({' '.join(str(error).split())[:150]}); leave it out, so that local views have the size of the others"
        ) from error
    finally:
        forward.in_local_views = False


def _given(state: LatentState, name: str) -> Tensor | None:
    forward = state.collecting
    return None if forward is None or not forward.is_own else (forward.inputs.latent or {}).get(name)


def _mask(projection: Any, args: tuple, output: Any) -> Any:
    state: LatentState = projection._latent_state
    mask, grid, attachment = _given(state, "mask"), state.backbone.grid, state.attachment
    if mask is None or grid is None:
        return None
    own = grid.mask_token
    token = attachment.heads.mask_token if own is None else attachment.decoder_weight(own)
    values = grid.masked(hidden_state(output), mask, token)
    return (values, *output[1:]) if isinstance(output, tuple) else values


def _drop(embeddings: Any, args: tuple, output: Any) -> Any:
    state: LatentState = embeddings._latent_state
    keep, grid, forward = _given(state, "keep"), state.backbone.grid, state.forward
    if grid is None or forward is None or forward.inputs.pixel_values is None:
        return None
    if keep is None:
        if _given(state, "causal") is not None:
            embedded, shape = hidden_state(output), grid.shape(forward.inputs.pixel_values)
            every = torch.arange(shape[0] * shape[1], device=embedded.device).expand(len(embedded), -1)
            state.kept = Kept(every, grid.causal(embedded), shape, embedded.shape[1])
        return None
    values, attention = grid.kept(hidden_state(output), keep, forward.inputs.pixel_values)
    state.kept = Kept(keep, attention, grid.shape(forward.inputs.pixel_values), values.shape[1])
    return (values, *output[1:]) if isinstance(output, tuple) else values


def _turn(rotary: Any, args: tuple, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor] | None:
    state: LatentState = rotary._latent_state
    keep, grid = _given(state, "keep"), state.backbone.grid
    return None if keep is None or grid is None else (grid.turned(output[0], keep), grid.turned(output[1], keep))


def _bias(part: Any, args: tuple, output: Tensor) -> Tensor | None:
    # a bias of all blocks is made before the embeddings are cut, one of a block after it, also in the backward
    state: LatentState = part._latent_state
    kept, grid, forward = state.kept, state.backbone.grid, state.forward
    if kept is None or grid is None or (forward is not None and not forward.is_own) or tuple(args[0]) != kept.shape:
        return None
    return grid.biased(output, kept.patches, kept.shape[0] * kept.shape[1])


def _attend(layer: Any, args: Any, kwargs: dict) -> tuple[tuple, dict] | None:
    # also when no forward is running: with activation checkpointing the block runs again in the backward
    state: LatentState = layer._latent_state
    kept, grid = state.kept, state.backbone.grid
    if kept is None or kept.attention is None or grid is None or (state.forward and not state.forward.is_own):
        return None
    read = args[0] if args else kwargs["hidden_states"]
    if read.shape[:2] != (len(kept.patches), kept.num):
        return None  # a view of another size, which is seen whole
    is_second = len(args) > 1 and grid.attention not in kwargs
    own = args[1] if is_second else kwargs.get(grid.attention)
    mask = kept.attention
    if grid.relative and own is not None:
        mask = mask + own  # a bias for all blocks
    if is_second:
        return (args[0], mask, *args[2:]), kwargs
    return args, kwargs | {grid.attention: mask}
