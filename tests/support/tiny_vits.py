"""Tiny ViTs of several families, and batches of images as a collator gives them."""

import torch
import transformers
import yaml
from torch import Tensor, nn

from latentlm import get_latent_model
from latentlm.attach.state import latent_state
from latentlm.monitor.image_batches import STEPS

SIDE = 4
PATCHES = SIDE * SIDE
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 16,
    "patch_size": 4,
    "num_channels": 2,
}
FAMILIES = {
    "ViT": {},
    "Dinov2": {},
    "Dinov2WithRegisters": {"num_register_tokens": 3},
    "DINOv3ViT": {"num_register_tokens": 2, "pos_embed_rescale": None},  # else its positions are drawn anew in training
}


def vit(family: str = "ViT", seed: int = 0, head: str = "Model") -> nn.Module:
    """A random model in evaluation mode whose weights, norms and positions are all told apart."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{family}Config")(**SIZES, **FAMILIES[family])
    model = getattr(transformers, f"{family}{head}")(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return model


def attach(text: str, family: str = "ViT", seed: int = 0, dtype=torch.float32) -> nn.Module:
    """The model in training mode with the terms of an objective given as YAML."""
    model = get_latent_model(vit(family, seed), {"lm_weight": 0, "monitor_every": 0, **yaml.safe_load(text)})
    latent_state(model).image_batches = STEPS  # some batches here are odd on purpose
    return model.to(dtype).train()


def images(rows: int = 3, views: int = 1, kept: int | None = None, blocks: int = 1, seed: int = 0, drop=True) -> dict:
    """A batch; with `kept` that many patches of every view are seen, the others are masked in `blocks`."""
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randn(rows * views, 2, 16, 16, generator=draw)
    first = torch.arange(views) * (1 + PATCHES)
    latent: dict[str, Tensor] = {"views": torch.arange(views), "cls": first.expand(rows, 1, views)}
    if views == 2:
        latent |= {"cls_1": first[:, None].expand(rows, 2, 1), "cls_2": first.flip(0)[:, None].expand(rows, 2, 1)}
    if kept is not None:
        order = torch.stack([torch.randperm(PATCHES, generator=draw) for _ in range(rows * views)])
        seen, hidden = order[:, :kept].sort(1).values, order[:, kept:]
        latent |= {"keep": seen} if drop else {"mask": torch.zeros(rows * views, PATCHES).scatter(1, hidden, 1).bool()}
        start = first[:, None] + 1
        latent["visible"] = seen.view(rows, views, -1) + start
        latent["masked"] = (hidden.view(rows, views, blocks, -1) + start[:, None]).flatten(1, 2)
    return {"pixel_values": pixels, "latent": latent}
