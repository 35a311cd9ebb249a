"""The few collectives the losses need, differentiable, and no-ops without a process group.

Gradient convention. Each collective is its own true adjoint: when every rank runs backward on its own ``L_r``, the
gradient that reaches an input of rank r is ``d(sum_r L_r)/dx_r``. Data-parallel training then averages parameter
gradients over ranks, so what is minimised is the mean of ``L_r``. Hence

 * a loss computed replicated (every rank ends with the same value) needs nothing further, and
 * values per row must be reduced as ``all_reduce_sum(values.sum()) / all_reduce_count(rows)``, not as a mean of means,

and both give the value and the gradient of one process that sees all rows. A collective waits for every rank: all ranks
must call it, and all must (or all must not) need the gradient, also a rank that happens to hold no rows.
"""

from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, distributed


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Number of this rank; 0 without a process group."""
    return distributed.get_rank() if world_size() > 1 else 0


def all_reduce_sum(x: Shaped[Tensor, "*b"]) -> Shaped[Tensor, "*b"]:
    """Sum over ranks, as a new tensor; the gradient is summed over ranks too."""
    return _Sum.apply(x) if world_size() > 1 else x


def all_reduce_count(count: int, device: torch.device) -> int:
    """Sum of a Python count over ranks; `device` is one the process group can communicate on."""
    return int(all_reduce_sum(torch.tensor(count, device=device))) if world_size() > 1 else count


def all_gather_rows(x: Shaped[Tensor, "m ..."]) -> tuple[Shaped[Tensor, "all_m ..."], int]:
    """Rows of all ranks in rank order, and the index of this rank's first row.

    Ranks may hold different numbers of rows, none included. The gradient of every copy flows back to the rank that owns
    the row, so a row is also trained by the losses of other ranks.
    """
    if world_size() == 1:
        return x, 0
    counts = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(world_size())]
    distributed.all_gather(counts, torch.tensor([len(x)], device=x.device))
    sizes = [int(count) for count in counts]
    start = sum(sizes[: rank()])
    return _GatherRows.apply(x, sizes, start), start


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # the collective writes in place: the caller's tensor must stay what it was
        total = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return all_reduce_sum(grad)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int], start: int) -> Tensor:
        ctx.own = slice(start, start + len(x))
        # the collective wants equal shapes: pad to the longest shard, cut afterwards
        padded = x.new_zeros(max(sizes), *x.shape[1:])
        padded[: len(x)] = x
        shards = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(shards, padded)
        return torch.cat([shard[:size] for shard, size in zip(shards, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return all_reduce_sum(grad)[ctx.own], None, None
