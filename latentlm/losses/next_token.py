"""The data loss of a language model, position by position."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from latentlm.losses.precision import full_precision


@dataclass(frozen=True)
class NextToken:
    """Raise the probability of the id that comes next.

        L(x, i) = log sum_v exp(x_v) - x_i

    Shapes:    logits [*b v], ids [*b] -> [*b]; ids are already aligned with the logits that predict them.
    Gradient:  through the logits. Ignored positions give 0 and receive exactly 0, whatever they hold (even NaN).
    Scale:     nats per position; log v for uniform logits. The mean over kept positions is the usual next-token loss.
    Ranks:     pointwise, no communication.
    Source:    cross entropy against a one-hot target. Differs: none.
    Checked:   tests/losses/test_next_token.py - naive float64 loop; ignored positions; torch's own mean.
    See also:  SoftCrossEntropy (a distribution as target).

    Args:
        ignore: the id of positions without a target.
    """

    ignore: int = -100
    per_sample: ClassVar[bool] = True

    def __call__(self, logits: Float[Tensor, "*b v"], ids: Int[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """One value per position; 0 where ids are `ignore`."""
        keep = ids != self.ignore
        if bool(keep.all()):  # no copy of the logits where every position counts
            return _cross_entropy(logits.flatten(0, -2), ids.flatten()).view(ids.shape)
        # selecting first keeps the float32 copy to the positions that count, and NaN elsewhere out of the gradient
        values = _cross_entropy(logits[keep], ids[keep])
        return values.new_zeros(ids.shape).masked_scatter(keep, values)


@full_precision
def _cross_entropy(logits: Float[Tensor, "m v"], ids: Int[Tensor, "m"]) -> Float[Tensor, "m"]:
    return F.cross_entropy(logits, ids, reduction="none")
