"""How the forward of a network takes images: under which name, in which layout, and at another size than its own."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from latentlm.backbones.geometry import Geometry

ImageInputs = Callable[[Tensor, Tensor | None], dict[str, Any]]
"""(pixels [r c h w], numbers of the patches kept [r k] or None) -> arguments of the network's forward."""


def image_inputs(model: nn.Module, encoder: nn.Module, sizes: Geometry) -> ImageInputs:
    """What the network is to be called with; its own images pass as they are."""
    known = inspect.signature(model.forward).parameters
    if "pixel_values_videos" in known:
        return partial(_clip, sizes)
    if "spatial_shapes" in known:
        return partial(_cut_up, sizes)
    return partial(_plain, sizes, "interpolate_pos_encoding" in inspect.signature(encoder.forward).parameters)


def plain_inputs(pixels: Float[Tensor, "r c h w"], keep: Int[Tensor, "r k"] | None) -> dict[str, Any]:
    """Images of the network's own size."""
    return {"pixel_values": pixels}


def _plain(sizes: Geometry, interpolates: bool, pixels: Tensor, keep: Tensor | None) -> dict[str, Any]:
    other = tuple(pixels.shape[-2:]) != sizes.image
    return {"pixel_values": pixels} | ({"interpolate_pos_encoding": True} if other and interpolates else {})


def _clip(sizes: Geometry, pixels: Tensor, keep: Tensor | None) -> dict[str, Any]:
    """V-JEPA 2: an image is a clip of one frame, which the network repeats to fill one tube."""
    if tuple(pixels.shape[-2:]) != sizes.image:
        high, wide = pixels.shape[-2:]
        raise ValueError(
            f"pixel_values: {high} x {wide}, and this network counts positions for {sizes.image[0]} x "
            f"{sizes.image[1]}; set model.config.crop_size to {high}"
        )
    return {"pixel_values_videos": pixels[:, None], "skip_predictor": True}


def _cut_up(sizes: Geometry, pixels: Tensor, keep: Tensor | None) -> dict[str, Any]:
    """SigLIP 2: rows of patches, channels last, and how many there are each way."""
    (high, wide), (rows, columns) = (
        sizes.patch,
        (pixels.shape[-2] // sizes.patch[0], pixels.shape[-1] // sizes.patch[1]),
    )
    pieces = pixels.unflatten(3, (columns, wide)).unflatten(2, (rows, high)).permute(0, 2, 4, 3, 5, 1)
    pieces = pieces.flatten(1, 2).flatten(2)
    there = pieces.new_ones(pieces.shape[:2], dtype=torch.long) if keep is None else (keep >= 0).long()
    shape = torch.tensor([[rows, columns]], device=pixels.device).expand(len(pixels), -1)
    return {"pixel_values": pieces, "pixel_attention_mask": there, "spatial_shapes": shape}
