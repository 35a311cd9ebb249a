"""Losses on views of the same samples: the groups ``g`` of the set are the views; sample i is the same in each.

Beyond the legend: ``M`` samples of all ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latentlm.distributed.collectives import all_gather_rows, all_reduce_sum, world_size
from latentlm.losses.precision import full_precision
from latentlm.losses.samples import centred, count, require_views


@dataclass(frozen=True)
class Invariance:
    """Draw the views of a sample to their common mean.

        L(z) = mean_g mean_m mean_d (z_gmd - mu_md)^2,   mu the mean of the first `num_global` views

    Shapes:    z [g m d] -> []; g counts views.
    Gradient:  through every view, also through the mean.
    Scale:     that of a variance: grows with the square of the latents' scale. Two views: a quarter of their Mse.
    Ranks:     the mean is over all ranks' samples, uneven counts allowed. No samples anywhere give 0.
    Source:    Balestriero & LeCun 2025 (LeJEPA), arXiv:2511.08544, the prediction loss in the form of its code, to the
               centroid. Differs: the sum over all pairs (eq. 5) is larger by the variance among the global views.
    Checked:   tests/losses/test_multi_view.py - naive float64 loop; closed forms;
               tests/losses/test_losses_two_ranks.py - 2 ranks == 1.
    See also:  Mse (two views, either may be a teacher's), Sigreg and Visreg (what keeps it from collapse).

    Args:
        num_global: how many of the first views the mean is taken over; 0 takes all.
    """

    num_global: int = 0
    per_sample: ClassVar[bool] = True

    def __post_init__(self):
        if self.num_global < 0:
            raise ValueError(f"Invariance.num_global is {self.num_global}; it must be 0 (all views) or more")

    @full_precision
    def __call__(self, z: Float[Tensor, "g m d"], step: int) -> Float[Tensor, ""]:
        """One value for the set; `step` is for set losses that draw at random."""
        require_views(self, z)
        samples = count(self, z, least=1)
        if samples == 0:
            return z.sum()
        apart = z - z[: self.num_global or None].mean(0)
        return all_reduce_sum(_length(apart)) / (samples * len(z) * z.shape[-1])


@dataclass(frozen=True)
class BarlowTwins:
    """Make coordinate i of one view agree with coordinate i of the other and with no other coordinate.

        L(z) = mean over pairs of views:  sum_i (1 - C_ii)^2 + redundancy sum_{i != j} C_ij^2
        C = (1/M) sum_m u_m v_m^T,   u, v the two views, every coordinate standardised over the M samples

    Shapes:    z [g m d] -> []; g counts views.
    Gradient:  through every view, standardisation included.
    Scale:     grows with d (d at collapse and for unrelated views, 4 d for opposite ones); not with the latents' scale.
    Ranks:     mean, deviation and C are those of all ranks' samples. Not a sum over micro-batches. No samples anywhere
               give 0; one is an error.
    Source:    Zbontar et al. 2021, arXiv:2103.03230, eq. 1 and 2. Differs: more than two views; the official code also
               multiplies by 0.024, which is a term's weight here.
    Checked:   tests/losses/test_multi_view.py - naive float64 loop; closed forms;
               tests/losses/test_losses_two_ranks.py - 2 ranks == 1.
    See also:  Covariance (decorrelates within a view).

    Args:
        redundancy: lambda, the weight of the off-diagonal entries.
        std: ``biased`` divides by M as batch norm does; ``unbiased`` by M - 1, which leaves C_ii = (M-1)/M for equal
            views.
        eps: added to the variance, so that a constant coordinate has a gradient.
    """

    redundancy: float = 5e-3
    std: Literal["biased", "unbiased"] = "biased"
    eps: float = 1e-5
    per_sample: ClassVar[bool] = False

    def __post_init__(self):
        if self.redundancy < 0 or self.eps <= 0 or self.std not in ("biased", "unbiased"):
            raise ValueError(f"{self}: redundancy must be 0 or more, eps above 0, std 'biased' or 'unbiased'")

    @full_precision
    def __call__(self, z: Float[Tensor, "g m d"], step: int) -> Float[Tensor, ""]:
        """One value for the set; `step` is for set losses that draw at random."""
        require_views(self, z)
        samples = count(self, z)
        if samples == 0:
            return z.sum()
        unit = self._standardized(z, samples)
        values = [self._apart(all_reduce_sum(one.mT @ other) / samples) for one, other in combinations(unit, 2)]
        return torch.stack(values).mean()

    def _standardized(self, z: Float[Tensor, "g m d"], samples: int) -> Sequence[Float[Tensor, "m d"]]:
        if world_size() == 1 and self.std == "biased":  # the same in one kernel
            return [F.batch_norm(view, None, None, training=True, eps=self.eps) for view in z]
        deviation = centred(z, samples)
        squares = all_reduce_sum(deviation.square().sum(-2, keepdim=True))
        return (deviation / (squares / (samples - (self.std == "unbiased")) + self.eps).sqrt()).unbind()

    def _apart(self, correlation: Float[Tensor, "d d"]) -> Float[Tensor, ""]:
        """Distance to the identity; in place, because d may be 8192, and nothing else needs the matrix."""
        diagonal = correlation.diagonal().sub_(1)
        # the diagonal's share is in the first sum already
        return self.redundancy * _length(correlation) + (1 - self.redundancy) * _length(diagonal)


@dataclass(frozen=True)
class Mmcr:
    """Spread the samples' centroids over all directions, and keep the views of each sample close together.

        L(z) = - |C|_* + weight_views mean_m |Z_m|_*,   C [M d] the mean over views, Z_m [g d] the views of one sample

    Shapes:    z [g m d] -> []; g counts views; |.|_* is the sum of the singular values.
    Gradient:  through every view; that of a nuclear norm, bounded, some subgradient where singular values vanish.
    Scale:     between -sqrt(M min(M, d)) and about 0 with `normalize`: grows with M, so weights do not carry over
               between batch sizes.
    Ranks:     centroids of all ranks are gathered, uneven counts allowed. Not a sum over micro-batches. No samples
               anywhere give 0.
    Source:    Yerxa et al. 2023, arXiv:2303.03307. Differs: none; lightly's version leaves the normalisation to the
               caller and takes online and momentum views as one set.
    Checked:   tests/losses/test_multi_view.py - naive float64 loop; closed forms;
               tests/losses/test_losses_two_ranks.py - 2 ranks == 1.
    See also:  BarlowTwins, NtXent (other losses over views).

    Args:
        weight_views: lambda, the weight of the spread within a sample.
        normalize: put every view on the unit sphere first.
    """

    weight_views: float = 5e-3
    normalize: bool = True
    per_sample: ClassVar[bool] = False

    def __post_init__(self):
        if self.weight_views < 0:
            raise ValueError(f"Mmcr.weight_views is {self.weight_views}; it must be 0 or more")

    @full_precision
    def __call__(self, z: Float[Tensor, "g m d"], step: int) -> Float[Tensor, ""]:
        """One value for the set; `step` is for set losses that draw at random."""
        require_views(self, z)
        samples = count(self, z, least=1)
        if samples == 0:
            return z.sum()
        z = F.normalize(z, dim=-1, eps=1e-6) if self.normalize else z
        centroids, _ = all_gather_rows(z.mean(0))
        within = all_reduce_sum(_nuclear(z.transpose(0, 1))) / samples
        return self.weight_views * within - _nuclear(centroids)


def _length(x: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Sum of squares, in one pass and with one pass back."""
    flat = x.flatten()
    return torch.dot(flat, flat)


def _nuclear(x: Float[Tensor, "*b m d"]) -> Float[Tensor, ""]:
    if not bool(x.isfinite().all()):
        return torch.nan * x.sum()  # the decomposition would raise instead
    return torch.linalg.svdvals(x).sum()
