"""Our losses against lightly's on one random batch: value, gradient and time, in one run.

pip install --no-deps lightly        (its torchvision is not needed here)

Prints a table and ends with 1 if a row differs by more than float32 rounding. The settings are those of
latentlm/losses/README.md. Times are of a forward and its backward on 2 views of 256 samples; both take turns, and
their ratio is the median over rounds.

python scripts/bench/losses_vs_lightly.py [--rounds 15] [--samples 256] [--dim 1024]
"""

import argparse
import importlib
import importlib.util
import sys
import time
from collections.abc import Callable
from statistics import median
from types import ModuleType
from unittest.mock import MagicMock, patch

import torch
from torch import Tensor

from latentlm.components.assignments import Center
from latentlm.losses import (
    BarlowTwins,
    Cosine,
    Covariance,
    Invariance,
    Koleo,
    Mmcr,
    Mse,
    NtXent,
    Sigreg,
    SoftCrossEntropy,
    Variance,
    Visreg,
)
from latentlm.losses.prototypes import sinkhorn
from latentlm.losses.samples import directions

VIEWS, SAMPLES, DIM, STEP = 2, 64, 16, 3
TOLERANCE = 1e-4


def lightly_losses() -> ModuleType:
    """lightly.loss. Its models import torchvision, which none of these losses uses: a stand-in will do."""
    if importlib.util.find_spec("torchvision") is None:
        names = ["torchvision", *(f"torchvision.{name}" for name in ("ops", "models", "models.vision_transformer"))]
        sys.modules |= {name: MagicMock() for name in names}
    return importlib.import_module("lightly.loss")


def with_slices(dim: int, num: int, run: Callable[[], Tensor]) -> Tensor:
    """Run with lightly's random directions replaced by ours."""
    ours = directions(dim, num, 0, STEP).float()
    with patch("torch.randn", lambda *args, **kwargs: ours.clone()):
        return run()


def dino(theirs: ModuleType, pred: Tensor, target: Tensor) -> Tensor:
    loss = theirs.DINOLoss(pred.shape[-1], center_momentum=0.0)
    loss.center = target.mean(0)[None, None]  # the centre of this batch
    return loss([target], [torch.zeros_like(pred), pred])  # its diagonal is left out


def rows(theirs: ModuleType) -> dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]]:
    """Name -> our loss and theirs, of views [v m d]."""
    visreg = theirs.visreg_loss
    return {
        "NtXent = NTXentLoss": (lambda z: NtXent()(z, STEP), lambda z: theirs.NTXentLoss()(z[0], z[1])),
        "BarlowTwins = BarlowTwinsLoss": (
            lambda z: BarlowTwins()(z, STEP),
            lambda z: theirs.BarlowTwinsLoss()(z[0], z[1]),
        ),
        "25 Mse + 25 Variance + 2 Covariance = VICRegLoss": (
            lambda z: 25 * Mse()(z[0], z[1]).mean() + 25 * Variance()(z, STEP) + 2 * Covariance()(z, STEP),
            lambda z: theirs.VICRegLoss()(z[0], z[1]),
        ),
        "Invariance = lejepa_invariance_loss": (
            lambda z: Invariance(num_global=1)(z, STEP),
            lambda z: theirs.lejepa_loss.lejepa_invariance_loss(all_proj=z, global_proj=z[:1]),
        ),
        "Sigreg(1024) = SIGReg": (
            lambda z: Sigreg(num_slices=1024)(z, STEP),
            lambda z: with_slices(
                z.shape[-1], 1024, lambda: torch.stack([theirs.lejepa_loss.SIGReg()(view) for view in z]).mean()
            ),
        ),
        "Visreg = center + scale + shape": (
            lambda z: Visreg(num_slices=512)(z, STEP),
            lambda z: with_slices(
                z.shape[-1],
                512,
                lambda: visreg.visreg_center_loss(z) + visreg.visreg_scale_loss(z) + visreg.visreg_shape_loss(z, 512),
            ),
        ),
        "Koleo = KoLeoLoss": (
            lambda z: Koleo()(z, STEP),
            lambda z: torch.stack([theirs.KoLeoLoss()(view) for view in z]).mean(),
        ),
        "Mmcr(normalize=False) = MMCRLoss": (
            lambda z: Mmcr(normalize=False)(z, STEP),
            lambda z: theirs.MMCRLoss()(z[:1].transpose(0, 1), z[1:].transpose(0, 1)),
        ),
        "Cosine - 1 = NegativeCosineSimilarity": (
            lambda z: Cosine()(z[0], z[1]).mean() - 1,
            lambda z: theirs.NegativeCosineSimilarity()(z[0], z[1]),
        ),
        "Center, SoftCrossEntropy = DINOLoss, centre of the batch": (
            lambda z: SoftCrossEntropy(temperature=0.1)(z[0], _centred(z[1].detach())).mean(),
            lambda z: dino(theirs, z[0], z[1].detach()),
        ),
        "sinkhorn by position, SoftCrossEntropy = CAPILoss": (
            lambda z: SoftCrossEntropy(temperature=0.12)(z[0], _by_position(z[1].detach(), 0.06)).mean(),
            lambda z: theirs.CAPILoss()(_positions(z[1]), _positions(z[0])),
        ),
    }


def _centred(logits: Tensor) -> Tensor:
    module = Center(momentum=0.0).build(logits.shape[-1])
    module(logits, STEP)
    module.advance()  # type: ignore[operator]
    return module(logits, STEP)


def _positions(z: Tensor) -> Tensor:
    return z.view(8, len(z) // 8, -1)  # 8 images


def _by_position(logits: Tensor, temperature: float) -> Tensor:
    return sinkhorn(_positions(logits).transpose(0, 1), temperature).transpose(0, 1).reshape(len(logits), -1)


def _times(pair: tuple[Callable[[Tensor], Tensor], ...], z: Tensor, rounds: int) -> str:
    """Milliseconds of both, and the median of their ratio; they take turns, so that a slow moment hits both."""
    spent: list[list[float]] = [[], []]
    for turn in range(rounds + 1 if rounds else 0):
        for place in (0, 1) if turn % 2 else (1, 0):
            leaf = z.clone().requires_grad_()
            start = time.perf_counter()
            pair[place](leaf).backward()
            if turn:  # the first one warms up
                spent[place].append((time.perf_counter() - start) * 1e3)
    if not rounds:
        return ""
    ratio = median(ours / theirs for ours, theirs in zip(*spent, strict=True))
    return f"{median(spent[0]):8.1f}{median(spent[1]):8.1f}{ratio:7.2f}"


def main() -> int:
    """Print the table."""
    theirs = lightly_losses()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each; 0 leaves the times out")
    parser.add_argument("--samples", type=int, default=256, help="in a view, for the times")
    parser.add_argument("--dim", type=int, default=1024, help="width, for the times")
    options = parser.parse_args()
    base = torch.randn(VIEWS, SAMPLES, DIM, generator=torch.Generator().manual_seed(0))
    large = torch.randn(VIEWS, options.samples, options.dim, generator=torch.Generator().manual_seed(1))
    worst = 0.0
    print(f"{'':55}{'ours':>12}{'lightly':>12}{'gradient':>12}{'ms':>8}{'lightly':>8}{'time':>7}")
    for name, pair in rows(theirs).items():
        leaves = [base.clone().requires_grad_() for _ in pair]
        values = [loss(leaf) for loss, leaf in zip(pair, leaves, strict=True)]
        torch.stack(values).sum().backward()
        ours, other = (leaf.grad for leaf in leaves)
        assert ours is not None
        assert other is not None
        gap = float((ours - other).abs().max() / other.abs().max())
        mine, lightly = (value.item() for value in values)
        worst = max(worst, gap, abs(mine - lightly) / max(abs(lightly), 1e-6))
        print(f"{name:55}{mine:12.6f}{lightly:12.6f}{gap:12.1e}{_times(pair, large, options.rounds)}", flush=True)
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main())
