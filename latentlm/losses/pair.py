"""Losses of a prediction against its target, position by position; nothing is reduced over positions."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from latentlm.losses.precision import full_precision


@dataclass(frozen=True)
class Mse:
    """Move the prediction to the target, every coordinate by its own error.

        L(p, t) = mean_d (p_d - t_d)^2

    Shapes:    pred [*b d], target [*b d] -> [*b].
    Gradient:  through both arguments; whether the target is detached is the target's decision.
    Scale:     zero at equality; does not grow with the width, grows with the square of the latents' scale.
    Ranks:     pointwise, no communication.
    Source:    mean squared error. Differs: none.
    Checked:   tests/losses/test_pairwise.py - naive float64 loop; rotation, one-line torch equivalent.
    See also:  SmoothL1 (bounded gradient), Cosine (ignores length).

    >>> import torch
    >>> float(Mse()(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])))
    2.0
    """

    per_sample: ClassVar[bool] = True

    @full_precision
    def __call__(self, pred: Float[Tensor, "*b d"], target: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """One value per position."""
        return (pred - target).square().mean(-1)


@dataclass(frozen=True)
class SmoothL1:
    """Move the prediction to the target with a pull that stops growing beyond `beta`.

        L(p, t) = mean_d h(p_d - t_d),   h(e) = e^2 / (2 beta) if |e| < beta, else |e| - beta / 2

    Shapes:    pred [*b d], target [*b d] -> [*b].
    Gradient:  through both arguments; at most 1/d per coordinate.
    Scale:     zero at equality; Mse / (2 beta) near it, mean absolute error far from it. beta = 0 is the latter alone.
    Ranks:     pointwise, no communication.
    Source:    Girshick 2015, arXiv:1504.08083, eq. 3. Differs: `beta` (1 in the paper); mean, not sum, over d.
    Checked:   tests/losses/test_pairwise.py - naive float64 loop; both branches by hand.
    See also:  Mse.

    Args:
        beta: error at which the square turns into a line.
    """

    beta: float = 1.0
    per_sample: ClassVar[bool] = True

    def __post_init__(self):
        if self.beta < 0:
            raise ValueError(f"SmoothL1.beta is {self.beta}; it must be 0 or more")

    @full_precision
    def __call__(self, pred: Float[Tensor, "*b d"], target: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """One value per position."""
        return F.smooth_l1_loss(pred, target, beta=self.beta, reduction="none").mean(-1)


@dataclass(frozen=True)
class Cosine:
    """Turn the prediction towards the target, whatever their lengths.

        L(p, t) = 1 - <p, t> / (|p| |t|)

    Shapes:    pred [*b d], target [*b d] -> [*b].
    Gradient:  through both arguments, orthogonal to each; grows as 1 / length.
    Scale:     zero at equality, 1 when orthogonal, 2 when opposite; no dependence on the latents' scale.
    Ranks:     pointwise, no communication.
    Source:    Grill et al. 2020 (BYOL), arXiv:2006.07733, eq. 2. Differs: half of it (2 - 2 cos there); lengths below
               1e-6 count as 1e-6, so a zero vector gives 1.
    Checked:   tests/losses/test_pairwise.py - naive float64 loop; scale and rotation invariance.
    See also:  Mse, InfoNce (the same angle, with negatives).
    """

    per_sample: ClassVar[bool] = True

    @full_precision
    def __call__(self, pred: Float[Tensor, "*b d"], target: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """One value per position."""
        lengths = pred.norm(dim=-1).clamp(min=1e-6) * target.norm(dim=-1).clamp(min=1e-6)
        return 1 - (pred * target).sum(-1) / lengths  # two thirds of the time of F.cosine_similarity


@dataclass(frozen=True)
class SoftCrossEntropy:
    """Move the predicted distribution to the target's, both given as logits over d.

        L(p, t) = - sum_d softmax(t / target_temperature)_d  log softmax(p / temperature)_d

    Shapes:    pred [*b d], target [*b d] -> [*b]; both are logits, d counts classes or prototypes.
    Gradient:  through both arguments; a target that is not detached is also drawn to low entropy.
    Scale:     nats, between the target's entropy (equal distributions) and infinity.
    Ranks:     pointwise, no communication.
    Source:    Caron et al. 2021 (DINO), arXiv:2104.14294, eq. 2. Differs: no centring, which belongs to the target.
    Checked:   tests/losses/test_pairwise.py - naive float64 loop; uniform target gives log d.
    See also:  Kl (the same gradient to `pred`, without the target's entropy).

    Args:
        temperature: divides the predicted logits.
        target_temperature: divides the target's logits; below `temperature` it sharpens.
    """

    temperature: float = 1.0
    target_temperature: float = 1.0
    per_sample: ClassVar[bool] = True

    def __post_init__(self):
        if min(self.temperature, self.target_temperature) <= 0:
            raise ValueError(f"{self}: temperature and target_temperature must be above 0")

    @full_precision
    def __call__(self, pred: Float[Tensor, "*b d"], target: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """One value per position."""
        wanted = (target / self.target_temperature).softmax(-1)
        return -(wanted * (pred / self.temperature).log_softmax(-1)).sum(-1)


@dataclass(frozen=True)
class Kl:
    """Move the predicted distribution over the target's mass, both given as logits over d.

        L(p, t) = sum_d P_t,d (log P_t,d - log P_p,d),   P_x = softmax(x / temperature)

    With `top_k` the sum is over the k classes that the target finds likeliest, and over all others as one more class;
    it is at most the whole one.

    Shapes:    pred [*b d], target [*b d] -> [*b]; both are logits.
    Gradient:  through both arguments.
    Scale:     nats; zero at equality. Gradients shrink about as temperature^-2.
    Ranks:     pointwise, no communication.
    Source:    Hinton et al. 2015, arXiv:1503.02531, sec. 2. Differs: the target's entropy is subtracted; no
               temperature^2 factor, so a weight found at one temperature does not carry over to another.
    Checked:   tests/losses/test_pairwise.py - naive float64 loop; SoftCrossEntropy minus the target's entropy.
    See also:  SoftCrossEntropy (two temperatures).

    Args:
        temperature: divides both logits.
        top_k: how many classes are compared one by one; by default all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    per_sample: ClassVar[bool] = True

    def __post_init__(self):
        if self.temperature <= 0:
            raise ValueError(f"Kl.temperature is {self.temperature}; it must be above 0")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"Kl.top_k is {self.top_k}; it must be 1 or more")

    @full_precision
    def __call__(self, pred: Float[Tensor, "*b d"], target: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """One value per position."""
        wanted, found = (target / self.temperature).log_softmax(-1), (pred / self.temperature).log_softmax(-1)
        if self.top_k is not None and self.top_k < wanted.shape[-1]:
            kept = wanted.topk(self.top_k, -1).indices
            wanted, found = _with_rest(wanted, kept), _with_rest(found, kept)
        # summed as one difference: cross entropy minus entropy would cancel near equality
        return (wanted.exp() * (wanted - found)).sum(-1)


def _with_rest(logs: Float[Tensor, "*b d"], kept: Int[Tensor, "*b k"]) -> Float[Tensor, "*b k+1"]:
    """Log-probabilities of the classes kept, and that of all others together."""
    others = logs.scatter(-1, kept, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([logs.gather(-1, kept), others], -1)
