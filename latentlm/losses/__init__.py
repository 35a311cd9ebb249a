"""All losses; adding a class to a union is what registers it."""

from latentlm.losses.contrast import InfoNce
from latentlm.losses.next_token import NextToken
from latentlm.losses.pair import Cosine, Kl, Mse, SmoothL1, SoftCrossEntropy
from latentlm.losses.sigreg import Sigreg
from latentlm.losses.spread import Covariance, Variance

PairLoss = Mse | SmoothL1 | Cosine | SoftCrossEntropy | Kl
"""(pred [*b d], target [*b d]) -> [*b]: pointwise."""

RowLoss = InfoNce
"""(pred [m d], target [m d]) -> [m]: a value per row that depends on the other rows."""

DataLoss = NextToken
"""(logits [*b v], ids [*b]) -> [*b]: pointwise, against data."""

SetLoss = Sigreg | Variance | Covariance
"""(z [*g m d], step) -> []: of a set of samples, without a target."""

__all__ = [
    "Cosine",
    "Covariance",
    "DataLoss",
    "InfoNce",
    "Kl",
    "Mse",
    "NextToken",
    "PairLoss",
    "RowLoss",
    "SetLoss",
    "Sigreg",
    "SmoothL1",
    "SoftCrossEntropy",
    "Variance",
]
