"""A checkpoint at another image size: its learned positions are resampled once, and what is saved is plain again.

    P'[i, j] = bicubic interpolation of P at the centres of the new grid,   P the positions as an image of d channels

Positions in front of the grid (class token, registers) and all other weights stay as they are.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from latentlm.config.schema import ConfigError

POSITIONS = ("position_embedding", "pos_embed")
RELATIVE = "relative_position_bias_table"
NO_PLACE = 3  # entries of a relative table that belong to the class token


def fill_resampled(model: nn.Module, saved: dict[str, Tensor], old: tuple[int, int], new: tuple[int, int]) -> None:
    """Give a network the weights of a checkpoint with another grid.

    Args:
        model: made for the grid `new`.
        saved: weights of the checkpoint, made for the grid `old`.
        old: rows and columns of patches.
        new: the same of the network.
    """
    own = model.state_dict()
    for name, weight in own.items():
        have = saved[name]
        if have.shape == weight.shape:
            continue
        last = name.rpartition(".")[2] if not name.endswith(".weight") else name.split(".")[-2]
        if last == RELATIVE:
            saved[name] = resampled(have[None], _offsets(old), _offsets(new), behind=NO_PLACE)[0]
        elif any(each in last for each in POSITIONS):
            table = have if have.dim() == 3 else have[None]
            saved[name] = resampled(table, old, new).view(weight.shape)
        else:
            raise ConfigError(
                f"model.config: {name} is {list(have.shape)} in the checkpoint, not {list(weight.shape)}; only "
                "positions can be brought to another image size"
            )
    model.load_state_dict(saved)


def resampled(
    table: Float[Tensor, "1 n d"], old: tuple[int, int], new: tuple[int, int], behind: int = 0
) -> Float[Tensor, "1 m d"]:
    """Positions of the grid `old` at the grid `new`; those in front of the grid, and `behind` it, are kept."""
    num = old[0] * old[1]
    front, grid, rest = table.split([table.shape[1] - num - behind, num, behind], 1)
    image = grid.transpose(1, 2).unflatten(2, old).float()
    image = F.interpolate(image, new, mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([front, image.flatten(2).transpose(1, 2).to(table.dtype), rest], 1)


def _offsets(shape: tuple[int, int]) -> tuple[int, int]:
    return 2 * shape[0] - 1, 2 * shape[1] - 1
