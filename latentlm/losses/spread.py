"""Regularization by second moments and by nearest neighbours. Beyond the legend: ``M`` samples of all ranks."""

from dataclasses import dataclass
from math import log
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latentlm.distributed.collectives import all_reduce_sum
from latentlm.losses.precision import full_precision
from latentlm.losses.samples import centred, count, gathered


@dataclass(frozen=True)
class Variance:
    """Keep every coordinate's standard deviation above a floor.

        L(z) = mean_g mean_d max(0, floor - sqrt(Var_d + eps)),   Var_d unbiased over the M samples

    Shapes:    z [*g m d] -> []. m is the sample axis; statistics are taken per leading index g, then averaged.
    Gradient:  through z. Zero above the floor; at exact collapse zero by symmetry, and small near it (below about
               sqrt(eps)).
    Scale:     between 0 and floor - sqrt(eps) (0.99 by default), whatever M and d.
    Ranks:     mean and variance are those of all ranks' samples, uneven counts allowed. Not a sum over micro-batches.
               No samples anywhere give 0; one is an error.
    Source:    Bardes et al. 2022 (VICReg), arXiv:2105.04906, eq. 1 and 2. Differs: one branch (the official code halves
               the sum over two).
    Checked:   tests/losses/test_variance_covariance_koleo.py - naive float64 loop; closed forms;
               tests/losses/test_losses_two_ranks.py - 2 ranks == 1.
    See also:  Covariance (its companion), Sigreg (all moments).

    Args:
        floor: gamma, the standard deviation that every coordinate should have.
        eps: added to the variance, so that the root has a gradient at 0.
    """

    floor: float = 1.0
    eps: float = 1e-4
    per_sample: ClassVar[bool] = False

    def __post_init__(self):
        if self.floor <= 0 or self.eps <= 0:
            raise ValueError(f"{self}: floor and eps must be above 0")

    @full_precision
    def __call__(self, z: Float[Tensor, "*g m d"], step: int) -> Float[Tensor, ""]:
        """One value for the set; `step` is for set losses that draw at random."""
        samples = count(self, z)
        if samples == 0:
            return z.sum()
        variance = all_reduce_sum(centred(z, samples).square().sum(-2)) / (samples - 1)
        return (self.floor - (variance + self.eps).sqrt()).relu().mean()


@dataclass(frozen=True)
class Covariance:
    """Make the coordinates uncorrelated.

        L(z) = mean_g  sum_{i != j} C_ij^2 / norm,   C the unbiased covariance over the M samples

    Shapes:    z [*g m d] -> []. m is the sample axis; statistics are taken per leading index g, then averaged.
    Gradient:  through z. Vanishes at collapse, so it is used together with Variance.
    Scale:     grows with the fourth power of the latents' scale; with norm "d" also with d, with "d(d-1)" it is the
               mean squared off-diagonal entry.
    Ranks:     mean and covariance are those of all ranks' samples, uneven counts allowed. Not a sum over micro-batches.
               No samples anywhere give 0; one is an error.
    Source:    Bardes et al. 2022 (VICReg), arXiv:2105.04906, eq. 3 and 4. Differs: norm "d(d-1)" is offered too; one
               branch.
    Checked:   tests/losses/test_variance_covariance_koleo.py - naive float64 loop; closed forms;
               tests/losses/test_losses_two_ranks.py - 2 ranks == 1.
    See also:  Variance (its companion), Sigreg (all moments).

    Args:
        norm: what divides the sum: the width ("d", paper) or the number of off-diagonal entries ("d(d-1)").
    """

    norm: Literal["d", "d(d-1)"] = "d"
    per_sample: ClassVar[bool] = False

    def __post_init__(self):
        if self.norm not in ("d", "d(d-1)"):
            raise ValueError(f"Covariance.norm is {self.norm!r}; choose 'd' or 'd(d-1)'")

    @full_precision
    def __call__(self, z: Float[Tensor, "*g m d"], step: int) -> Float[Tensor, ""]:
        """One value for the set; `step` is for set losses that draw at random."""
        samples, dim = count(self, z), z.shape[-1]
        if samples == 0:
            return z.sum()
        deviation = centred(z, samples)
        covariance = all_reduce_sum(deviation.mT @ deviation) / (samples - 1)  # *g d d
        off_diagonal = covariance.masked_fill(torch.eye(dim, dtype=torch.bool, device=z.device), 0)
        # one coordinate has nothing to correlate with: 0 under both norms
        norm = dim if self.norm == "d" else max(dim * (dim - 1), 1)
        return off_diagonal.square().sum((-2, -1)).mean() / norm


@dataclass(frozen=True)
class Koleo:
    """Push every latent away from its nearest neighbour on the unit sphere.

        L(z) = - mean_g mean_m log( |u_m - u_nearest(m)| + eps ),   u = z / |z|

    Shapes:    z [*g m d] -> []. m is the sample axis; neighbours are searched within a leading index g.
    Gradient:  through both of a pair, growing as 1 / distance (2e7 for exact copies); no other latent has any.
    Scale:     -0.35 for orthogonal latents, -0.69 for a lone opposite pair, 16.8 for copies in 16 dimensions.
    Ranks:     neighbours are searched among all ranks' samples, uneven counts allowed. Not a sum over micro-batches.
               No samples anywhere give 0; one is an error.
    Source:    Sablayrolles et al. 2018, arXiv:1806.03198, as used by DINOv2, arXiv:2304.07193 (weight 0.1).
               Differs: all ranks' samples, where DINOv2 searches each rank's own; a latent is never its own
               neighbour (the official code marks it with -1, which an opposite latent ties with).
    Checked:   tests/losses/test_variance_covariance_koleo.py - naive float64 loop; closed forms;
               tests/losses/test_losses_two_ranks.py - 2 ranks == 1.
    See also:  Sigreg, Variance (spread of the whole set).

    Args:
        eps: added to every coordinate's difference and to the distance.
    """

    eps: float = 1e-8
    per_sample: ClassVar[bool] = False

    def __post_init__(self):
        if self.eps <= 0:
            raise ValueError(f"Koleo.eps is {self.eps}; it must be above 0")

    @full_precision
    def __call__(self, z: Float[Tensor, "*g m d"], step: int) -> Float[Tensor, ""]:
        """One value for the set; `step` is for set losses that draw at random."""
        samples = count(self, z)
        if samples == 0:
            return z.sum()
        unit = F.normalize(z, dim=-1, eps=self.eps)
        everyone, start = gathered(unit)
        with torch.no_grad():
            cosine = unit @ everyone.mT  # *g m M
            own = torch.arange(start, start + z.shape[-2], device=z.device)[:, None]
            cosine.scatter_(-1, own.expand(*cosine.shape[:-1], 1), -torch.inf)
            nearest = cosine.argmax(-1, keepdim=True)
            # of all sets together: a look-up by row has a quicker backward than one by element
            first = torch.arange(everyone.shape[:-2].numel(), device=z.device) * everyone.shape[-2]
            nearest = nearest.reshape(len(first), z.shape[-2]) + first[:, None]
        neighbour = everyone.flatten(0, -2).index_select(0, nearest.flatten()).view_as(unit)
        distance = F.pairwise_distance(unit, neighbour, eps=self.eps)  # *g m
        return -all_reduce_sum((distance + self.eps).log().sum(-1)).mean() / samples


@dataclass(frozen=True)
class MeanEntropy:
    """Make the average assignment even, so that every prototype is used.

        L(z) = log d - H(q),   q = mean_m softmax(z_m / temperature),   H(q) = -sum_d q_d log q_d

    Shapes:    z [*g m d] -> []; z are logits over d prototypes. m is the sample axis; q is taken per leading index g,
               the values are averaged.
    Gradient:  through z.
    Scale:     0 (all prototypes alike) to log d (one of them).
    Ranks:     q is the mean over all ranks' samples, uneven counts allowed. Not a sum over micro-batches. No samples
               anywhere give 0.
    Source:    Assran et al. 2022 (MSN), arXiv:2204.07141, eq. 2 (mean entropy maximization). Differs: log d is added,
               so that 0 is the least.
    Checked:   tests/losses/test_variance_covariance_koleo.py - naive float64 loop; closed forms;
               tests/losses/test_losses_two_ranks.py - 2 ranks == 1.
    See also:  `Sinkhorn` (the same by construction, in the target).

    Args:
        temperature: divides the logits.
    """

    temperature: float = 0.1
    per_sample: ClassVar[bool] = False

    def __post_init__(self):
        if self.temperature <= 0:
            raise ValueError(f"MeanEntropy.temperature is {self.temperature}; it must be above 0")

    @full_precision
    def __call__(self, z: Float[Tensor, "*g m d"], step: int) -> Float[Tensor, ""]:
        """One value for the set; `step` is for set losses that draw at random."""
        samples = count(self, z, least=1)
        if samples == 0:
            return z.sum()
        mean = all_reduce_sum((z / self.temperature).softmax(-1).sum(-2)) / samples
        return log(z.shape[-1]) + torch.special.xlogy(mean, mean).sum(-1).mean()
