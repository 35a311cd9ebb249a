"""The blocks and the input grid of a plain ViT of timm, inside transformers' wrapper."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from latentlm.backbones.blocks import Backbone
from latentlm.backbones.grid import Grid
from latentlm.config.schema import ConfigError


def holds_timm(model: PreTrainedModel) -> bool:
    """Whether the network is timm's; the wrapper's config says neither its sizes nor its depth."""
    return isinstance(getattr(model, "timm_model", None), nn.Module)


def check_plain(inner: Any) -> None:
    """Refuse what is not blocks in a row between a patch embedding and a norm."""
    parts = ("patch_embed.proj", "norm_pre", "blocks", "norm")
    known = {name for name, _ in inner.named_modules()}
    lacks = [part for part in parts if part not in known]
    if getattr(inner, "rope", None) is not None:
        lacks.append("fixed positions")
    if lacks:
        raise ConfigError(
            f"model: timm's {type(inner).__name__} has no {lacks[0]}, and only timm's plain ViTs can be tapped; use "
            "one such as vit_small_patch16_224, or transformers' own model"
        )


def find_timm_vit(model: PreTrainedModel, has_loss: bool) -> Backbone:
    """Find the parts of timm's plain ViTs (VisionTransformer): blocks in a row between a patch embedding and a norm."""
    inner: Any = model.timm_model
    check_plain(inner)
    layers = list(inner.blocks)
    grid = Grid(
        config=model.config,
        projection=inner.patch_embed.proj,
        embeddings=inner.norm_pre,
        patch=tuple(inner.patch_embed.patch_size),
        channels=inner.patch_embed.proj.in_channels,
        attention="attn_mask",
    )
    # the wrapper calls methods of the network, never the network itself, so that no hook on it would run
    return Backbone(model, layers, inner.norm, len(layers), inner.embed_dim, grid, has_loss)
