"""The encoder, blocks, final norm and input grid of a Hugging Face ViT.

ViT, DeiT, BEiT, Data2VecVision, DINOv2, DINOv3, I-JEPA, V-JEPA 2 (images), the vision towers of CLIP, SigLIP and
SigLIP 2, and timm's plain ViTs; found by structure, so that others of their kind go as well.
"""

import inspect
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from latentlm.backbones.blocks import Backbone, block_width, final_norm, named_layers, search
from latentlm.backbones.geometry import geometry, refuse_pyramid, vision_config
from latentlm.backbones.grid import Grid
from latentlm.backbones.image_inputs import image_inputs
from latentlm.backbones.timm_vit import find_timm_vit, holds_timm

ATTENTION = ("attention_mask", "position_mask", "relative_position_bias")  # what blocks call it


def find_vit(model: PreTrainedModel, layers_path: str | None = None) -> Backbone:
    """Find encoder, blocks, final norm and the modules between pixels and the first block."""
    has_loss = "labels" in inspect.signature(model.forward).parameters
    if holds_timm(model):
        return find_timm_vit(model, has_loss)
    name, config = type(model).__name__, vision_config(model.config)
    refuse_pyramid(config, name)
    if getattr(config, "mask_ratio", None) is not None:
        raise ValueError(
            f"{name} hides patches of its own choice; load the same weights with ViTModel.from_pretrained, into which "
            "they fit (latentlm train does so by itself)"
        )
    encoder: Any = model.base_model
    projection = model.get_input_embeddings()
    if projection not in set(encoder.modules()):
        encoder = model  # some call their stack of blocks `model`
    layers = named_layers(model, layers_path) if layers_path else search(model, encoder, config)
    encoder = _innermost(encoder, projection, layers[0])
    dim = block_width(model, layers, getattr(config, "hidden_size", None))
    norm = final_norm(model, encoder, layers, dim)
    return Backbone(encoder, layers, norm, len(layers), dim, _grid(model, encoder, layers), has_loss)


def _innermost(encoder: nn.Module, *parts: nn.Module) -> nn.Module:
    """The child that holds all parts, as long as there is one: without the predictor of V-JEPA 2 beside it."""
    while True:
        inner = next((each for each in encoder.children() if set(parts) <= set(each.modules())), None)
        if inner is None:
            return encoder
        encoder = inner


def _grid(model: PreTrainedModel, encoder: nn.Module, layers: list[nn.Module]) -> Grid:
    name, config = type(model).__name__, vision_config(model.config)
    projection = model.get_input_embeddings()
    embeddings = next((child for child in encoder.children() if projection in set(child.modules())), None)
    if embeddings is None or layers[0] in set(embeddings.modules()):
        raise ValueError(f"{name}: found no module between its pixels and its first block; this ViT cannot be tapped")
    sizes = geometry(config, f"{name}: config")
    rotary = [child for child in encoder.children() if "rope" in type(child).__name__.lower()]
    tokens = [path for path, weight in encoder.named_parameters() if path.rpartition(".")[2] == "mask_token"]
    block = inspect.signature(layers[0].forward).parameters
    return Grid(
        config=config,
        projection=projection,
        embeddings=embeddings,
        rotary=rotary[0] if rotary else None,
        relative=[
            part
            for part in encoder.modules()
            if "relative_position_bias_table" in dict(part.named_parameters(recurse=False))
        ],
        patch=sizes.patch,
        channels=sizes.channels,
        mask_token=tokens[0] if tokens else None,
        attention=next((key for key in ATTENTION if key in block), ""),
        inputs=image_inputs(model, encoder, sizes),
    )
