"""Losses on the similarities among the positions of one anchor."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from latentlm.losses.precision import full_precision


@dataclass(frozen=True)
class Gram:
    """Keep the similarities among an anchor's positions what they are in the target.

        L_i(p, t) = mean_j ( cos(p_i, p_j) - cos(t_i, t_j) )^2,   i and j positions of one anchor

    Shapes:    pred [a n d], target [a n e], mask [a n] -> [a n], 0 where masked; widths may differ.
    Gradient:  through both arguments; masked positions receive exactly 0, whatever they hold (even NaN).
    Scale:     zero at equality, at most 4; 1 - 1/n where one side is collapsed and the other orthogonal. Blind to
               rotations of all latents and to their lengths.
    Ranks:     each anchor separately, no communication.
    Source:    Simeoni et al. 2025 (DINOv3), arXiv:2508.10104, Gram anchoring. Differs: mean over the entries
               of each image, as in its code (the paper writes the squared Frobenius norm); lengths below 1e-6 count as
               1e-6.
    Checked:   tests/losses/test_gram.py - naive float64 loop; closed forms; rotation; masked positions.
    See also:  Mse, Cosine (each position separately).
    """

    per_sample: ClassVar[bool] = True

    @full_precision
    def __call__(
        self, pred: Float[Tensor, "a n d"], target: Float[Tensor, "a n e"], mask: Bool[Tensor, "a n"]
    ) -> Float[Tensor, "a n"]:
        """One value per position."""
        gap = _cosines(pred, mask) - _cosines(target, mask)  # a n n, 0 at masked positions
        return gap.square().sum(-1) / mask.sum(-1, keepdim=True).clamp(min=1)


def _cosines(latents: Float[Tensor, "a n d"], mask: Bool[Tensor, "a n"]) -> Float[Tensor, "a n n"]:
    unit = F.normalize(latents.masked_fill(~mask[..., None], 0), dim=-1, eps=1e-6)
    return unit @ unit.mT
