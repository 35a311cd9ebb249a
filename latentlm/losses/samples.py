"""Shared by the set losses: the number of samples on all ranks, their mean, and random directions."""

import torch
from jaxtyping import Float
from torch import Tensor

from latentlm.distributed.collectives import all_gather_rows, all_reduce_count, all_reduce_sum


def count(part: object, z: Float[Tensor, "*g m d"], least: int = 2) -> int:
    """Number of samples on all ranks; fewer than `least` are refused on every rank, except none at all."""
    samples = all_reduce_count(z.shape[-2], z.device)
    if 0 < samples < least:
        raise ValueError(
            f"{type(part).__name__} needs at least {least} samples over all ranks, got {samples}; use a larger batch"
        )
    return samples


def require_views(part: object, z: Float[Tensor, "*g m d"]) -> None:
    """Refuse a set that does not hold two or more views of every sample."""
    if z.dim() < 3 or z.shape[-3] < 2:
        raise ValueError(
            f"{type(part).__name__} compares views of the same samples, got a set of shape {list(z.shape)}; "
            "use sample_axis: examples and a set with two or more views"
        )


def centred(z: Float[Tensor, "*g m d"], samples: int) -> Float[Tensor, "*g m d"]:
    """Samples minus the mean over all ranks."""
    return z - all_reduce_sum(z.sum(-2, keepdim=True)) / samples


def gathered(z: Float[Tensor, "*g m d"]) -> tuple[Float[Tensor, "*g all_m d"], int]:
    """Samples of all ranks, and the index of this rank's first one."""
    rows, start = all_gather_rows(z.movedim(-2, 0))
    return rows.movedim(0, -2), start


def directions(dim: int, num_slices: int, seed: int, step: int) -> Float[Tensor, "d k"]:
    """Unit columns, uniform on the sphere; drawn on the CPU, so that all ranks agree on any device."""
    # torch's CPU generator reads 32 bits: the odd multiplier keeps (seed, step) and (step, seed) apart in them
    generator = torch.Generator().manual_seed((seed * 2654435761 + step) % 2**32)
    columns = torch.randn(dim, num_slices, generator=generator, dtype=torch.float64)
    return columns / columns.norm(dim=0)
