"""Fixed sines and cosines as the positions of a ViT from scratch, in the place of learned ones."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentlm.backbones.blocks import Backbone
from latentlm.backbones.resample import POSITIONS
from latentlm.config.schema import ConfigError


def set_sine_positions(model: nn.Module, backbone: Backbone, shape: tuple[int, int]) -> None:
    """Write them into the network's learned positions, which are not trained then; class token and registers have 0.

    He et al. 2021 (MAE), arXiv:2111.06377, sec. 3.

    Args:
        model: the network.
        backbone: its parts.
        shape: rows and columns of patches.
    """
    num = shape[0] * shape[1]
    for name, weight in model.named_parameters():
        is_table = any(each in name for each in POSITIONS) and "latent." not in name
        front = weight.shape[-2] - num if is_table and weight.ndim > 1 else -1
        if front < 0:
            continue
        table = sines(shape, backbone.dim)
        with torch.no_grad():
            weight.zero_()
            (weight if weight.ndim == 2 else weight[0])[front:] = table.to(weight)
        weight.requires_grad_(False)
        return
    raise ConfigError(
        f"model.positions: {type(model).__name__} has no learned positions to replace; leave it out, or use vit"
    )


def sines(shape: tuple[int, int], dim: int) -> Float[Tensor, "p d"]:
    """Half of the width for the row, half for the column: sines, then cosines, of ``place / 10000^(4 i / d)``."""
    if dim % 4:
        raise ConfigError(f"model.positions: sine needs a width that is a multiple of 4, and it is {dim}; use another")
    rates = 10_000 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    rows, columns = (torch.arange(count, dtype=torch.float64)[:, None] * rates for count in shape)
    waves = [torch.cat([each.sin(), each.cos()], -1) for each in (rows, columns)]
    table = torch.cat([waves[0][:, None].expand(*shape, -1), waves[1][None].expand(*shape, -1)], -1)
    return table.flatten(0, 1)
