"""Balanced assignments: every prototype is used equally often.

Beyond the legend: ``k`` prototypes, ``M`` rows of all ranks.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from latentlm.distributed.collectives import all_reduce_sum
from latentlm.losses.precision import full_precision
from latentlm.losses.samples import gathered


@torch.no_grad()
@full_precision
def sinkhorn(
    logits: Float[Tensor, "*g m k"], temperature: float = 0.05, iterations: int = 3
) -> Float[Tensor, "*g m k"]:
    """Log-probabilities of a balanced assignment: every row sums to 1, every prototype is used about M / k times.

        Q = exp(l / T);   repeat: Q_ij /= sum_i Q_ij over the M rows,  Q_ij /= sum_j Q_ij

    In logarithms, so nothing overflows (``exp(l / T)`` leaves float32 at l / T = 88). Adding a constant to a prototype
    changes nothing; adding one to a row does, so a row's own maximum must not be subtracted first, and is not. Each
    leading index g is balanced separately: with positions there, this is CAPI's position-wise assignment. Rows of all
    ranks count. Without gradient: an assignment is a target. Caron et al. 2020 (SwAV), arXiv:2006.09882, sec. 3.1;
    Darcet et al. 2025 (CAPI), arXiv:2502.08769.
    """
    balanced = logits / temperature
    if not iterations:
        return balanced
    if logits.shape[-2]:
        mass, _ = gathered(balanced.logsumexp(-2, keepdim=True))
    else:  # no rows here: the other ranks still wait for this one
        mass, _ = gathered(balanced)
    # in place: on a CPU new memory costs more than the arithmetic
    balanced = balanced.sub_(mass.logsumexp(-2, keepdim=True) if mass.shape[-2] > 1 else mass).log_softmax(-1)
    # from here on sums lie between 1 / (M k) and M: factors of rows and prototypes are found without logarithms
    share = balanced.exp()
    row, prototype = torch.ones_like(share[..., :1]), torch.ones_like(share[..., :1, :])
    for _ in range(iterations - 1):
        prototype = 1 / all_reduce_sum((share * row).sum(-2, keepdim=True))
        row = 1 / (share * prototype).sum(-1, keepdim=True)
    return balanced.add_(row.log()).add_(prototype.log())
