"""Regularization as a normality test. Beyond the legend: ``j`` quadrature knots, ``M`` samples of all ranks."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentlm.distributed.collectives import all_reduce_sum
from latentlm.losses.precision import full_precision
from latentlm.losses.samples import count, directions


@dataclass(frozen=True)
class Sigreg:
    """Push a batch of latents towards an isotropic Gaussian, one random direction at a time.

        L(z) = mean_k  M * 2 integral_0^t_max |phi_k(t) - exp(-t^2/2)|^2 w(t) dt,   w(t) = exp(-t^2/2)
        phi_k(t) = mean_m exp(i t <z_m, a_k>),   a_k uniform on the unit sphere

    Shapes:    z [*g m d] -> []. m is the sample axis; statistics are taken per leading index g, then averaged.
    Gradient:  through z; at most of order t per sample, and zero at exact collapse. Directions a_k are redrawn from
               (seed, step), equal on all ranks and devices.
    Scale:     grows with M (paper); about 1.05 under N(0, I), whatever M and d. `scale_by_samples=False` divides M out;
               weights do not carry over between the two. Mean and scale of z are tested, z is not standardised first.
    Ranks:     characteristic functions are averaged over ranks with their counts before squaring; M counts all ranks.
               Not a sum over micro-batches. No samples anywhere give 0; one sample is defined.
    Source:    Balestriero & LeCun 2025 (LeJEPA), arXiv:2511.08544, SIGReg with the Epps-Pulley statistic. Differs: the
               grid is [0, t_max = 3], doubled by symmetry, as in the authors' package; the paper's listing and other
               libraries are settings (latentlm/losses/README.md).
    Checked:   tests/losses/test_sigreg.py - naive float64 loop; closed forms; chunked == unchunked; N(0, I) scores
               lower than uniform; tests/losses/test_losses_two_ranks.py - 2 ranks == 1.
    See also:  Variance, Covariance (second moments only), Visreg (does not fade at collapse).

    Args:
        num_slices: directions per step.
        knots: points of the trapezoid rule, on [0, t_max].
        t_max: highest frequency tested.
        two_sided: put the knots on [-t_max, t_max].
        scale_by_samples: multiply by M, as a test statistic is.
        chunk: directions held in memory at once (m * chunk * knots numbers); changes nothing else.
        seed: of the directions, together with the step.
    """

    num_slices: int = 256
    knots: int = 17
    t_max: float = 3.0
    two_sided: bool = False
    scale_by_samples: bool = True
    chunk: int = 64
    seed: int = 0
    per_sample: ClassVar[bool] = False

    def __post_init__(self):
        if self.num_slices < 1 or self.chunk < 1 or self.knots < 2 or self.t_max <= 0:
            raise ValueError(f"{self}: num_slices and chunk must be 1 or more, knots 2 or more, t_max above 0")

    @full_precision
    def __call__(self, z: Float[Tensor, "*g m d"], step: int) -> Float[Tensor, ""]:
        """One value for the set; `step` picks the directions."""
        samples = count(self, z, least=1)
        if samples == 0:
            return z.sum()
        knots = self.grid().to(z)
        slices = directions(z.shape[-1], self.num_slices, self.seed, step).to(z)
        sums = [_Characteristic.apply(z, part, knots) for part in slices.split(self.chunk, dim=1)]
        phi = all_reduce_sum(torch.cat(sums, dim=-3)) / samples  # *g k j 2
        gaussian = (-knots.square() / 2).exp()
        gap = (phi[..., 0] - gaussian).square() + phi[..., 1].square()
        statistic = (gap * self.weights().to(z)).sum(-1).mean()
        return statistic * samples if self.scale_by_samples else statistic

    def grid(self) -> Float[Tensor, "j"]:
        """The frequencies at which the characteristic functions are compared."""
        return torch.linspace(-self.t_max if self.two_sided else 0, self.t_max, self.knots, dtype=torch.float64)

    def weights(self) -> Float[Tensor, "j"]:
        """Trapezoid weights of the knots, doubled by symmetry where only one side is given, times the window w."""
        knots = self.grid()
        width = (knots[1] - knots[0]) * torch.ones_like(knots) * (1 if self.two_sided else 2)
        width[[0, -1]] /= 2
        return width * (-knots.square() / 2).exp()


class _Characteristic(torch.autograd.Function):
    """Sum over samples of the real and imaginary part of exp(i t u): ``[*g k j 2]``.

    Only the projections are kept: otherwise backward would hold the cosines of all chunks, and chunking would save
    nothing. They are computed a second time there, but not a third time as automatic differentiation would.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, directions: Tensor, knots: Tensor) -> Tensor:
        projected = z @ directions  # *g m k
        ctx.save_for_backward(projected, directions, knots)
        angles = projected.unsqueeze(-1) * knots  # *g m k j
        return torch.stack((angles.cos().sum(-3), angles.sin().sum(-3)), dim=-1)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        projected, directions, knots = ctx.saved_tensors
        angles = projected.unsqueeze(-1) * knots
        real, imaginary = (given.unsqueeze(-4) * knots[:, None]).unbind(-1)  # *g 1 k j
        slope = angles.cos().mul_(imaginary).sub_(angles.sin_().mul_(real)).sum(-1)
        return slope @ directions.mT, None, None
