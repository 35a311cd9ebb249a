"""Cross entropy between assignments to prototypes, and two ways to keep the wanted ones from all being the same.

Beyond the legend: ``k`` prototypes, ``M`` rows of all ranks.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from latentlm.dist import all_reduce_count, all_reduce_sum
from latentlm.losses.precision import full_precision
from latentlm.losses.samples import gathered


@full_precision
def sinkhorn(
    logits: Float[Tensor, "*g m k"], temperature: float = 0.05, iterations: int = 3
) -> Float[Tensor, "*g m k"]:
    """Log-probabilities of a balanced assignment: every row sums to 1, every prototype is wanted about M / k times.

        Q = exp(l / T);   repeat: Q_ij /= sum_i Q_ij over the M rows,  Q_ij /= sum_j Q_ij

    In logarithms, so nothing overflows (``exp(l / T)`` leaves float32 at l / T = 88). Adding a constant to a prototype
    changes nothing; adding one to a row does, so a row's own maximum must not be taken off first, and is not. Each
    leading index g is balanced by itself: with positions there, that is CAPI's position-wise assignment. Rows of all
    ranks count. Caron et al. 2020 (SwAV), arXiv:2006.09882, sec. 3.1; Darcet et al. 2025 (CAPI), arXiv:2502.08769.
    """
    balanced = logits / temperature
    for _ in range(iterations):
        if logits.shape[-2]:
            mass, _ = gathered(balanced.logsumexp(-2, keepdim=True))
        else:  # no rows here: the other ranks still wait for this one
            mass, _ = gathered(balanced)
        balanced = (balanced - mass.logsumexp(-2, keepdim=True)).log_softmax(-1)
    return balanced


@full_precision
def centred_log_softmax(
    logits: Float[Tensor, "*g m k"], temperature: float = 0.04, center: Float[Tensor, "*g 1 k"] | None = None
) -> Float[Tensor, "*g m k"]:
    """``log softmax((l - c) / T)``; c is `center`, or the mean of all ranks' rows where none is kept.

    Caron et al. 2021 (DINO), arXiv:2104.14294, sec. 3.1, which keeps c as a running mean over batches.
    """
    if center is None:
        rows = all_reduce_count(logits.shape[-2], logits.device)
        center = all_reduce_sum(logits.sum(-2, keepdim=True)) / max(rows, 1)
    return ((logits - center) / temperature).log_softmax(-1)


@dataclass(frozen=True)
class BalancedCrossEntropy:
    """Move the predicted assignment to the target's, which is first balanced over the rows.

        L_i = - sum_k q_ik log softmax(p_i / temperature)_k
        q = softmax((t - mean_m t) / target_temperature)    or    Sinkhorn(t / target_temperature)

    Shapes:    pred [m k], target [m k] -> [m]; both are logits over k prototypes.
    Gradient:  through both arguments; a target should be detached, or it is drawn to low entropy.
    Scale:     nats: log k for uniform assignments, never below the target's entropy.
    Ranks:     the target is balanced over all ranks' rows, uneven counts allowed; values are of own rows only.
    Source:    Caron et al. 2021 (DINO), arXiv:2104.14294, eq. 2; with Sinkhorn: SwAV, arXiv:2006.09882, as in DINOv2,
               arXiv:2304.07193. Differs: the centre is that of this batch, DINO's with momentum 0 (its own is a running
               mean with 0.9).
    Checked:   tests/test_parity_prototypes.py - naive float64 loop; closed forms; tests/test_distributed.py -
               2 ranks == 1.
    See also:  SoftCrossEntropy (a target that is balanced already), `sinkhorn`.

    Args:
        balance: ``center`` takes the rows' mean off the target; ``sinkhorn`` also makes prototypes equally wanted.
        temperature: divides the predicted logits.
        target_temperature: divides the target's logits; below `temperature` it sharpens.
        iterations: of Sinkhorn.
    """

    balance: Literal["center", "sinkhorn"] = "center"
    temperature: float = 0.1
    target_temperature: float = 0.04
    iterations: int = 3
    decomposable: ClassVar[bool] = False

    def __post_init__(self):
        if self.balance not in ("center", "sinkhorn"):
            raise ValueError(f"BalancedCrossEntropy.balance is {self.balance!r}; choose 'center' or 'sinkhorn'")
        if min(self.temperature, self.target_temperature) <= 0 or self.iterations < 1:
            raise ValueError(f"{self}: temperature and target_temperature must be above 0, iterations 1 or more")

    @full_precision
    def __call__(self, pred: Float[Tensor, "m k"], target: Float[Tensor, "m k"]) -> Float[Tensor, "m"]:
        """One value per row."""
        if self.balance == "center":
            wanted = centred_log_softmax(target, self.target_temperature)
        else:
            wanted = sinkhorn(target, self.target_temperature, self.iterations)
        return -(wanted.exp() * (pred / self.temperature).log_softmax(-1)).sum(-1)
