"""Readouts of frozen features: neighbours, ridge, a linear and an attentive probe. No choice is made on test data.

Letters: ``n`` images, ``d`` width, ``c`` classes, ``f`` targets of a regression, ``p`` patches.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

RIDGE_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the variance of a feature, for each input
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # scikit-learn's C of the linear probe: the inverse of its penalty
MAX_STEPS = 3000  # of the linear probe's solver; it stops when the gradient is gone


def knn(train: Tensor, labels: Tensor, test: Tensor, *, k: int = 20, temperature: float = 0.07) -> Tensor:
    """Class of each test row by a vote of its `k` nearest training rows, weighted ``exp(cosine / temperature)``.

    Source:    Wu et al. 2018, arXiv:1805.01978, as in DINO's evaluation (arXiv:2104.14294).
    Checked:   tests/evals/other/test_vision.py - a naive loop; raw Fashion-MNIST gives the known 84.59 % (60k images).
    """

    def weights(distance: np.ndarray) -> np.ndarray:
        return np.exp((1 - distance) / temperature)

    # scikit-learn takes a function here, and its stubs do not know
    vote = KNeighborsClassifier(
        min(k, len(train)),
        metric="cosine",
        algorithm="brute",
        weights=weights,  # type: ignore[arg-type]
    )
    return torch.from_numpy(vote.fit(train.double().numpy(), labels.numpy()).predict(test.double().numpy()))


def ridge(train: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """Linear readout of many targets ``[n f]`` at once; each has the penalty with the least leave-one-out error.

    Features are centred and scaled to variance 1 first.

    Checked:   tests/evals/other/test_vision.py - planted factors are found, absent ones are not.
    """
    model = make_pipeline(
        StandardScaler(), RidgeCV([len(train) * penalty for penalty in RIDGE_PENALTIES], alpha_per_target=True)
    )
    model.fit(train.double().numpy(), targets.double().numpy())
    width = targets.shape[1]
    return lambda features: torch.from_numpy(model.predict(features.double().numpy())).float().view(-1, width)


def linear_probe(train: Tensor, labels: Tensor, test: Tensor, *, seed: int = 0) -> Tensor:
    """Class of each test row by logistic regression, fitted until it has converged.

        min_W  sum_n CE(W^T x_n, y_n) + |W|^2 / (2 C),   x standardised

    C is the best of `STRENGTHS` on a tenth of `train`; the probe is then fitted on all of `train`. Another solver finds
    the same minimum, so the score does not depend on how well conditioned the features are.

    Source:    the linear evaluation that papers report, e.g. Oquab et al. 2023 (DINOv2), arXiv:2304.07193. Differs:
               the minimum itself instead of so many epochs of SGD; features of one depth.
    Checked:   tests/evals/other/test_vision.py - scikit-learn's own accuracy on ill-conditioned features, separable
               features, noise at chance, no look at test rows.
    """
    x, y = train.double().numpy(), labels.numpy()
    order = np.random.default_rng(seed).permutation(len(x))
    held, rest = order[: len(x) // 10], order[len(x) // 10 :]
    hits = [_logistic(x[rest], y[rest], strength).score(x[held], y[held]) for strength in STRENGTHS]
    best = _logistic(x, y, STRENGTHS[int(np.argmax(hits))])
    return torch.from_numpy(best.predict(test.double().numpy()))


def _logistic(x: np.ndarray, y: np.ndarray, strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MAX_STEPS)).fit(x, y)


class AttentiveHead(nn.Module):
    """One learned query attends to all patches; a linear classifier reads what it finds."""

    def __init__(self, dim: int, num_classes: int, num_heads: int = 4):
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, num_heads if dim % num_heads == 0 else 1, batch_first=True)
        self.classify = nn.Linear(dim, num_classes)

    def forward(self, patches: Tensor) -> Tensor:
        """Logits ``[n c]`` of patches ``[n p d]``."""
        patches = self.norm(patches)
        found, _ = self.attention(self.query.expand(len(patches), -1, -1), patches, patches, need_weights=False)
        return self.classify(found[:, 0])


def attentive_probe(
    train: Tensor,
    labels: Tensor,
    test: Tensor,
    *,
    epochs: int = 8,
    rates: tuple[float, ...] = (1e-3, 4e-3),
    seed: int = 0,
) -> Tensor:
    """Class of each test image ``[n p d]`` by an `AttentiveHead`; the learning rate is the best on a tenth of `train`.

    Source:    the attentive probe of V-JEPA, arXiv:2404.08471, and CAPI, arXiv:2502.08769. Differs: one cross-attention
               without MLP.
    Checked:   tests/evals/other/test_vision.py - a class that only one unknown patch tells, where the mean of patches
               fails.
    """
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train), generator=draw)
    held, rest = order[: len(train) // 10], order[len(train) // 10 :]
    heads = [_fit_head(train[rest], labels[rest], rate, epochs, int(labels.max()) + 1, seed) for rate in rates]
    hits = [float((_predict(head, train[held]) == labels[held]).float().mean()) for head in heads]
    return _predict(heads[hits.index(max(hits))], test)


def _fit_head(x: Tensor, labels: Tensor, rate: float, epochs: int, num_classes: int, seed: int) -> AttentiveHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = AttentiveHead(x.shape[-1], num_classes)
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(head.parameters(), rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * -(-len(x) // 128))
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=draw).split(128):
            F.cross_entropy(head(x[batch]), labels[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return head.eval()


@torch.no_grad()
def _predict(head: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([head(part).argmax(1) for part in x.split(500)])
