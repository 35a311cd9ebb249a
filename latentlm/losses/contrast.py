"""Contrastive losses: latents of the same sample against those of all others."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latentlm.distributed.collectives import all_gather_rows, all_reduce_sum
from latentlm.losses.precision import full_precision
from latentlm.losses.samples import count, require_views

# cosine up to which two targets are the same fact; below float32 rounding of a dot product it would miss exact copies
_SAME = 1e-6


@dataclass(frozen=True)
class InfoNce:
    """Draw each prediction to its own target and away from the targets of the other rows.

        L_i = - log( exp(s_ii / tau) / sum_j exp(s_ij / tau) ),   s_ij = cos(p_i, t_j)   (<p_i, t_j> if not normalize)

    Shapes:    pred [m d], target [m d] -> [m]; row i of both is one pair.
    Gradient:  through both arguments; a target also receives the gradients of rows on other ranks.
    Scale:     nats; log m when all targets are equal, so values of different batch sizes do not compare. One row
               without negatives gives 0.
    Ranks:     negatives are the targets of all ranks (`gather`), rows per rank may differ; values are
               those of this rank's rows.
    Source:    van den Oord et al. 2018, arXiv:1807.03748, eq. 4, with the cosine and temperature of Chen et al. 2020
               (SimCLR), arXiv:2002.05709, eq. 1. Differs: one direction only (negatives are targets, not predictions);
               `skip_duplicates`; lengths below 1e-6 count as 1e-6.
    Checked:   tests/losses/test_contrastive.py - naive float64 loop; closed forms;
               tests/losses/test_losses_two_ranks.py -
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
    per_sample: ClassVar[bool] = False

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


@dataclass(frozen=True)
class NtXent:
    """Draw the views of a sample together and away from all views of the other samples.

        L(z) = mean over anchors a and their positives p of  - log( exp(s_ap / tau) / sum_{j != a} exp(s_aj / tau) )
        s_ij = cos(z_i, z_j);   j runs over all views of all samples, p over the other views of a's sample

    Shapes:    z [g m d] -> []; g counts views.
    Gradient:  through every view, as anchor, positive and negative.
    Scale:     nats; log(g M - 1) when all latents are equal, so values of different batch sizes do not compare.
    Ranks:     negatives are all ranks' samples, uneven counts allowed. Not a sum over micro-batches. No samples
               anywhere give 0, and so does one sample with two views.
    Source:    Chen et al. 2020 (SimCLR), arXiv:2002.05709, eq. 1. Differs: more than two views (the mean over positives
               is outside the logarithm, Khosla et al. 2020, arXiv:2004.11362, eq. 2); all ranks' samples.
    Checked:   tests/losses/test_contrastive.py - naive float64 loop; closed forms;
               tests/losses/test_losses_two_ranks.py -
               2 ranks == 1.
    See also:  InfoNce (a prediction among targets, one direction).

    Args:
        temperature: tau, divides the similarities.
    """

    temperature: float = 0.5
    per_sample: ClassVar[bool] = False

    def __post_init__(self):
        if self.temperature <= 0:
            raise ValueError(f"NtXent.temperature is {self.temperature}; it must be above 0")

    @full_precision
    def __call__(self, z: Float[Tensor, "g m d"], step: int) -> Float[Tensor, ""]:
        """One value for the set; `step` is for set losses that draw at random."""
        require_views(self, z)
        samples, views = count(self, z, least=1), z.shape[0]
        if samples == 0:
            return z.sum()
        unit = F.normalize(z, dim=-1, eps=1e-6).transpose(0, 1)  # m g d: the views of a sample next to each other
        everyone, start = all_gather_rows(unit)
        logits = unit.flatten(0, 1) @ everyone.flatten(0, 1).T / self.temperature
        anchor = torch.arange(len(logits), device=z.device)
        logits = logits.scatter(1, (anchor + start * views)[:, None], -torch.inf)
        first = (anchor // views + start) * views
        shift = torch.arange(1, views, device=z.device)
        positives = first[:, None] + (anchor[:, None] % views + shift) % views  # m*g g-1
        return -all_reduce_sum(logits.log_softmax(-1).gather(1, positives).mean(-1).sum()) / (samples * views)


def _duplicates(
    target: Float[Tensor, "m d"], others: Float[Tensor, "all_m d"], own: Int[Tensor, "m"]
) -> Bool[Tensor, "m all_m"]:
    """Which of `others` point in the direction of the row's own target, except that target itself."""
    cosine = F.normalize(target, dim=-1) @ F.normalize(others, dim=-1).T
    # against the own product rather than 1: both are rounded in the same way, also without full float32 products
    same = cosine >= cosine.gather(1, own[:, None]) - _SAME
    return same.scatter(1, own[:, None], False)
