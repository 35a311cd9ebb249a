"""All losses; adding a class to a union is what registers it."""

from latentlm.losses.contrast import InfoNce, NtXent
from latentlm.losses.gram import Cka, Gram, Nearest
from latentlm.losses.next_token import NextToken
from latentlm.losses.pair import Cosine, Kl, Mse, SmoothL1, SoftCrossEntropy
from latentlm.losses.prototypes import sinkhorn
from latentlm.losses.sigreg import Sigreg
from latentlm.losses.spread import Covariance, Koleo, MeanEntropy, Variance
from latentlm.losses.views import BarlowTwins, Invariance, Mmcr
from latentlm.losses.visreg import Visreg

PairLoss = Mse | SmoothL1 | Cosine | SoftCrossEntropy | Kl
"""(pred [*b d], target [*b d]) -> [*b]: pointwise."""

RowLoss = InfoNce
"""(pred [m d], target [m d]) -> [m]: a value per row that depends on the other rows."""

AnchorLoss = Gram | Cka | Nearest
"""(pred [a n d], target [a n e], mask [a n]) -> [a n]: a value per position that depends on its anchor's other ones."""

DataLoss = NextToken
"""(logits [*b v], ids [*b]) -> [*b]: pointwise, against data."""

ViewLoss = Invariance | NtXent | BarlowTwins | Mmcr
"""(z [g m d], step) -> []: of a set of samples whose groups are views of the same."""

SetLoss = Sigreg | Visreg | Variance | Covariance | Koleo | MeanEntropy | ViewLoss
"""(z [*g m d], step) -> []: of a set of samples, without a target."""

__all__ = [
    "AnchorLoss",
    "BarlowTwins",
    "Cka",
    "Cosine",
    "Covariance",
    "DataLoss",
    "Gram",
    "InfoNce",
    "Invariance",
    "Kl",
    "Koleo",
    "MeanEntropy",
    "Mmcr",
    "Mse",
    "Nearest",
    "NextToken",
    "NtXent",
    "PairLoss",
    "RowLoss",
    "SetLoss",
    "Sigreg",
    "SmoothL1",
    "SoftCrossEntropy",
    "Variance",
    "ViewLoss",
    "Visreg",
    "sinkhorn",
]
