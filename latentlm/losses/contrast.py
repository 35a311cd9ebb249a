"""Losses that tell a row's own target from the targets of other rows."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latentlm.dist import all_gather_rows
from latentlm.losses.precision import full_precision

# cosine up to which two targets are the same fact; below float32 rounding of a dot product it would miss exact copies
_SAME = 1e-6


@dataclass(frozen=True)
class InfoNce:
    """Draw each prediction to its own target and away from the targets of the other rows.

        L_i = - log( exp(s_ii / tau) / sum_j exp(s_ij / tau) ),   s_ij = cos(p_i, t_j)   (<p_i, t_j> if not normalize)

    Shapes:    pred [m d], target [m d] -> [m]; row i of both is one pair.
    Gradient:  through both arguments; a target also receives what rows of other ranks made of it.
    Scale:     nats; log m when all targets are alike, so values of different batch sizes do not compare. One row
               without negatives gives 0.
    Ranks:     negatives are the targets of all ranks (`gather`), rows per rank may differ; values are of own rows only.
    Source:    van den Oord et al. 2018, arXiv:1807.03748, eq. 4, with the cosine and temperature of Chen et al. 2020
               (SimCLR), arXiv:2002.05709, eq. 1. Differs: one direction only (negatives are targets, not predictions);
               `skip_duplicates`; lengths below 1e-6 count as 1e-6.
    Checked:   tests/test_parity_contrast.py - naive float64 loop; closed forms; tests/test_distributed.py -
               2 ranks == 1.
    See also:  Cosine (no negatives), Variance and Sigreg (spread without negatives).

    Args:
        temperature: tau, divides the similarities.
        normalize: compare directions; otherwise plain dot products.
        gather: take negatives from all ranks.
        skip_duplicates: leave out negatives that point exactly where the row's own target points (the same fact twice
            in the batch), which the row could not tell apart.
    """

    temperature: float = 0.1
    normalize: bool = True
    gather: bool = True
    skip_duplicates: bool = False
    decomposable: ClassVar[bool] = False

    def __post_init__(self):
        if self.temperature <= 0:
            raise ValueError(f"InfoNce.temperature is {self.temperature}; it must be above 0")

    @full_precision
    def __call__(self, pred: Float[Tensor, "m d"], target: Float[Tensor, "m d"]) -> Float[Tensor, "m"]:
        """One value per row."""
        if self.normalize:
            pred, target = F.normalize(pred, dim=-1, eps=1e-6), F.normalize(target, dim=-1, eps=1e-6)
        others, start = all_gather_rows(target) if self.gather else (target, 0)
        own = torch.arange(start, start + len(pred), device=pred.device)
        logits = pred @ others.T / self.temperature  # m, m of all ranks
        if self.skip_duplicates:
            logits = logits.masked_fill(_duplicates(target.detach(), others.detach(), own), -torch.inf)
        return F.cross_entropy(logits, own, reduction="none")


def _duplicates(
    target: Float[Tensor, "m d"], others: Float[Tensor, "all_m d"], own: Int[Tensor, "m"]
) -> Bool[Tensor, "m all_m"]:
    """Which of `others` point where the row's own target points, its own place excepted."""
    cosine = F.normalize(target, dim=-1) @ F.normalize(others, dim=-1).T
    # against the own product rather than 1: both were rounded alike, also where matrix products are not full float32
    same = cosine >= cosine.gather(1, own[:, None]) - _SAME
    return same.scatter(1, own[:, None], False)
