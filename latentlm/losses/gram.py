"""Losses on an anchor's positions among each other: their similarities, and which of them are nearest to which."""

from dataclasses import dataclass
from typing import ClassVar

import torch
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


@dataclass(frozen=True)
class Cka:
    """Keep how an anchor's positions group, whatever basis they are written in.

        L_i(p, t) = 1 - <HKH, HTH> / (|HKH| |HTH|),   K = p p^T,  T = t t^T,  H = I - 1/n

    Shapes:    pred [a n d], target [a n e], mask [a n] -> [a n], the anchor's value at each of its positions, 0 where
               masked; widths may differ.
    Gradient:  through both arguments; masked positions receive exactly 0, whatever they hold (even NaN). None where an
               anchor has fewer than two positions or all of them are equal.
    Scale:     0 to 1: zero where one is a rotated, moved or scaled copy of the other, and where there is one position.
    Ranks:     each anchor separately, no communication.
    Source:    Kornblith et al. 2019, arXiv:1905.00414, linear CKA; as a loss between patches: PaKA, arXiv:2509.05606.
               Differs: none.
    Checked:   tests/losses/test_gram.py - naive float64 loop; invariances; masked positions.
    See also:  Gram (position by position, of cosines).
    """

    per_sample: ClassVar[bool] = True

    @full_precision
    def __call__(
        self, pred: Float[Tensor, "a n d"], target: Float[Tensor, "a n e"], mask: Bool[Tensor, "a n"]
    ) -> Float[Tensor, "a n"]:
        """One value for each anchor, at its positions."""
        one, other = _centred_kernel(pred, mask), _centred_kernel(target, mask)
        lengths = [each.square().sum((1, 2)).clamp(min=1e-12).sqrt() for each in (one, other)]
        alike = (one * other).sum((1, 2)) / (lengths[0] * lengths[1])
        return torch.where(mask & (mask.sum(1, keepdim=True) > 1), (1 - alike)[:, None], 0)


def _centred_kernel(latents: Float[Tensor, "a n d"], mask: Bool[Tensor, "a n"]) -> Float[Tensor, "a n n"]:
    count = mask.sum(-1)[:, None, None].clamp(min=1)
    kept = latents.masked_fill(~mask[..., None], 0)
    centred = (kept - kept.sum(1, keepdim=True) / count).masked_fill(~mask[..., None], 0)
    return centred @ centred.mT


@dataclass(frozen=True)
class Nearest:
    """Draw each position to the one of the target's that is nearest to it, where the two are closest of all.

        L_i(p, t) = n / num  mean_d (p_i - t_j(i))^2  for the `num` i with the smallest |p_i - t_j(i)|, else 0
        j(i) = argmin_j |p_i - t_j|

    Shapes:    pred [a n d], target [a n d], mask [a n] -> [a n], 0 where masked; n counts the anchor's positions.
    Gradient:  through both of a pair, none through the choice.
    Scale:     its mean over an anchor's positions is that of the squared distance of the pairs kept.
    Ranks:     each anchor separately, no communication.
    Source:    Bardes et al. 2022 (VICRegL), arXiv:2210.01571, sec. 3.2, the matches of features. Differs: only the
               distance; variance and covariance are terms of their own.
    Checked:   tests/losses/test_gram.py - naive float64 loop; a permuted copy costs nothing; masked positions.
    See also:  Mse (pairs that are given).

    Args:
        num: pairs of an anchor that are kept; all where it has fewer positions.
    """

    num: int = 20
    per_sample: ClassVar[bool] = True

    def __post_init__(self):
        if self.num < 1:
            raise ValueError(f"Nearest.num is {self.num}; it must be 1 or more")

    @full_precision
    def __call__(
        self, pred: Float[Tensor, "a n d"], target: Float[Tensor, "a n d"], mask: Bool[Tensor, "a n"]
    ) -> Float[Tensor, "a n"]:
        """One value per position."""
        pred, target = (each.masked_fill(~mask[..., None], 0) for each in (pred, target))
        with torch.no_grad():
            distance = torch.cdist(pred, target).masked_fill(~(mask[:, :, None] & mask[:, None]), torch.inf)
            least, nearest = distance.min(2)  # a n
            rank = least.argsort(dim=1, stable=True).argsort(dim=1)
            kept = mask & (rank < self.num)
            share = mask.sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1)
        found = target.gather(1, nearest[..., None].expand_as(target))
        return (pred - found).square().mean(-1) * kept * share
