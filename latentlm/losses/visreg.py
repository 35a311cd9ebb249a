"""Regularization in three parts that do not fade at collapse. Beyond the legend: ``M`` samples of all ranks."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentlm.distributed.collectives import all_reduce_sum
from latentlm.losses.precision import full_precision
from latentlm.losses.samples import centred, count, directions, gathered


@dataclass(frozen=True)
class Visreg:
    """Push a batch of latents towards an isotropic Gaussian: its mean, its deviations and its shape separately.

        L(z) = center mean_d mean_m(z_d)^2 + scale mean_d (1 - std_d)^2 + shape mean_k mean_i (u_k,(i) - q_i)^2
        u_k = <(z - mean) / (sg(std) + eps), a_k>, sorted;   q_i = Phi^-1(i / (M + 1));   std biased

    Shapes:    z [*g m d] -> []. m is the sample axis; statistics are taken per leading index g, then averaged.
    Gradient:  through z; the deviations in the third part are detached, so that shape does not change scale. The
               second tends to -2/d per coordinate's std at collapse instead of vanishing; at exact collapse it is zero.
    Scale:     0 to 2 near collapse, whatever M and d; a perfect sample has a small shape left (.003 at M = 64).
    Ranks:     all samples of all ranks, uneven counts allowed, the same directions everywhere. Not a sum over
               micro-batches. No samples anywhere give 0; one is an error.
    Source:    Wu et al. 2026 (VISReg), arXiv:2606.02572, eq. 1, 2, 5 and 6. Differs: exact over ranks, where the paper
               takes each rank's own samples and its own directions.
    Checked:   tests/losses/test_visreg.py - naive float64 loop; gradient norms near collapse; chunked == unchunked;
               tests/losses/test_losses_two_ranks.py - 2 ranks == 1.
    See also:  Sigreg (one statistic, fades at collapse), Variance and Covariance (second moments only).

    Args:
        center, scale, shape: weights of the three parts; three terms with one part each log them separately.
        num_slices: directions per step.
        eps: added to the deviation that the shape divides by.
        chunk: directions held in memory at once (M * chunk numbers, four times); changes nothing else.
        seed: of the directions, together with the step.
    """

    center: float = 1.0
    scale: float = 1.0
    shape: float = 1.0
    num_slices: int = 4096
    eps: float = 1e-4
    chunk: int = 256
    seed: int = 0
    per_sample: ClassVar[bool] = False

    def __post_init__(self):
        if min(self.center, self.scale, self.shape) < 0 or self.eps <= 0 or min(self.num_slices, self.chunk) < 1:
            raise ValueError(
                f"{self}: center, scale and shape must be 0 or more, eps above 0, num_slices and chunk 1 or more"
            )

    @full_precision
    def __call__(self, z: Float[Tensor, "*g m d"], step: int) -> Float[Tensor, ""]:
        """One value for the set; `step` picks the directions."""
        samples = count(self, z)
        if samples == 0:
            return z.sum()
        deviation = centred(z, samples)
        variance = all_reduce_sum(deviation.square().sum(-2, keepdim=True)) / samples
        # the root has no gradient at 0; clamped it has gradient 0 there
        std = variance.clamp(min=torch.finfo(z.dtype).tiny).sqrt()
        mean = all_reduce_sum(z.sum(-2)) / samples
        value = self.center * mean.square().mean() + self.scale * (1 - std).square().mean()
        return value + self.shape * self._shape(deviation / (std.detach() + self.eps), step) if self.shape else value

    def _shape(self, z: Float[Tensor, "*g m d"], step: int) -> Float[Tensor, ""]:
        everyone, _ = gathered(z)
        samples = everyone.shape[-2]
        places = torch.arange(1, samples + 1, dtype=torch.float64) / (samples + 1)
        quantiles = torch.special.ndtri(places).to(everyone)
        slices = directions(z.shape[-1], self.num_slices, self.seed, step).to(everyone)
        return _Gap.apply(everyone, slices, quantiles, self.chunk).mean() / self.num_slices  # type: ignore[union-attr]


class _Gap(torch.autograd.Function):
    """Squared distance of the sorted samples to the quantiles, mean over samples, sum over directions: ``[*g]``.

    A sample's gradient is its own distance, along every direction. It is made in the forward, chunk by chunk, so that
    backward keeps one number for each of z's and nothing is sorted twice.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, directions: Tensor, quantiles: Tensor, chunk: int) -> Tensor:
        total, grad = z.new_zeros(z.shape[:-2]), torch.zeros_like(z)
        for part in directions.split(chunk, dim=1):
            ranked, order = (part.mT @ z.mT).sort(dim=-1)  # *g k m: along memory, which sorts faster
            apart = ranked.sub_(quantiles)
            total += apart.square().sum((-2, -1))
            if ctx.needs_input_grad[0]:
                grad += torch.empty_like(apart).scatter_(-1, order, apart).mT @ part.mT
        ctx.save_for_backward(grad.mul_(2 / z.shape[-2]))
        return total / z.shape[-2]

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (grad,) = ctx.saved_tensors
        return given[..., None, None] * grad, None, None, None
