"""LARS: momentum whose step for each weight matrix is a share of the matrix' own length."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lars(Optimizer):
    """Layer-wise adaptive rates for large batches.

        u = g + weight_decay w;   u <- trust |w| / |u| u;   m <- momentum m + u;   w <- w - lr m

    Biases and weights of norms (all of one axis or none) are neither decayed nor adapted: u = g.

    Source:    You et al. 2017, arXiv:1708.03888, as BYOL, Barlow Twins and VICReg use it. Differs: none.
    Checked:   tests/trainers/test_optimizers.py - naive float64 loop; a step does not depend on the gradient's scale.

    Args:
        params: weights or groups of them.
        lr: learning rate.
        momentum: share of the last step that is kept.
        weight_decay: of matrices.
        trust: length of a step of a matrix as a share of its own, at lr 1.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 1e-3
    ):
        if not 0 <= momentum < 1 or trust <= 0:
            raise ValueError(f"lars: momentum {momentum} must be 0 or more and below 1, trust {trust} above 0")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                move = weight.grad
                if weight.ndim > 1:
                    move = move.add(weight, alpha=group["weight_decay"])
                    move = move * _share(weight, move, group["trust"])
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                momentum = state["momentum_buffer"]
                momentum.mul_(group["momentum"]).add_(move)
                weight.sub_(momentum, alpha=group["lr"])
        return loss


def _share(weight: Tensor, move: Tensor, trust: float) -> Tensor:
    size, length = weight.norm(), move.norm()
    return torch.where((size > 0) & (length > 0), trust * size / length.clamp(min=torch.finfo(length.dtype).tiny), 1.0)
