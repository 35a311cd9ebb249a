"""The encoder, blocks, final norm and input grid of a Hugging Face ViT (ViT, DeiT, DINOv2, DINOv3, I-JEPA, ...)."""

import inspect
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from latentlm.backbones.blocks import Backbone, block_width, final_norm, named_layers, search
from latentlm.backbones.grid import Grid
from latentlm.backbones.timm_vit import find_timm_vit, holds_timm


def find_vit(model: PreTrainedModel, layers_path: str | None = None) -> Backbone:
    """Find encoder, blocks, final norm and the modules between pixels and the first block."""
    has_loss = "labels" in inspect.signature(model.forward).parameters
    if holds_timm(model):
        return find_timm_vit(model, has_loss)
    encoder: Any = model.base_model
    if model.get_input_embeddings() not in set(encoder.modules()):
        encoder = model  # some call their stack of blocks `model`
    layers = named_layers(model, layers_path) if layers_path else search(model, encoder, model.config)
    dim = block_width(model, layers, getattr(model.config, "hidden_size", None))
    norm = final_norm(model, encoder, layers, dim)
    return Backbone(encoder, layers, norm, len(layers), dim, _grid(model, encoder, layers), has_loss)


def _grid(model: PreTrainedModel, encoder: nn.Module, layers: list[nn.Module]) -> Grid:
    config: Any = model.config
    name = type(model).__name__
    projection = model.get_input_embeddings()
    embeddings = next((child for child in encoder.children() if projection in set(child.modules())), None)
    if embeddings is None or layers[0] in set(embeddings.modules()):
        raise ValueError(f"{name}: found no module between its pixels and its first block; this ViT cannot be tapped")
    sides = [_pair(getattr(config, key, None), f"{name}: config.{key}") for key in ("image_size", "patch_size")]
    (high, wide), (patch_high, patch_wide) = sides
    if high % patch_high or wide % patch_wide:
        raise ValueError(
            f"model.config: patch_size {patch_high} x {patch_wide} does not divide image_size {high} x {wide}; choose "
            "one that does"
        )
    rotary = [child for child in encoder.children() if "rope" in type(child).__name__.lower()]
    tokens = [path for path, weight in encoder.named_parameters() if path.rpartition(".")[2] == "mask_token"]
    return Grid(
        config=config,
        projection=projection,
        embeddings=embeddings,
        rotary=rotary[0] if rotary else None,
        patch=(patch_high, patch_wide),
        channels=config.num_channels,
        mask_token=tokens[0] if tokens else None,
    )


def _pair(value: Any, what: str) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return int(value[0]), int(value[1])
    raise ValueError(f"{what} is {value!r}; a ViT needs one or two numbers there")
