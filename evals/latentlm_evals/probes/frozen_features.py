"""Readouts of frozen features: neighbours, ridge, a linear and an attentive probe. No choice is made on test data.

Letters: ``n`` images, ``d`` width, ``c`` classes, ``f`` targets of a regression, ``p`` patches, ``r`` learning rates.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEARNING_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)  # DINOv2's grid
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the mean variance of a feature


def knn(train: Tensor, labels: Tensor, test: Tensor, *, k: int = 20, temperature: float = 0.07) -> Tensor:
    """Class of each test row by a vote of its `k` nearest training rows, weighted ``exp(cosine / temperature)``.

    Source:    Wu et al. 2018, arXiv:1805.01978, as in DINO's evaluation (arXiv:2104.14294).
    Checked:   tests/evals/other/test_vision.py - a naive loop; raw Fashion-MNIST gives the known 84.59 % (60k images).
    """
    keys, num_classes = F.normalize(train, dim=1), int(labels.max()) + 1
    found = []
    for rows in F.normalize(test, dim=1).split(500):
        near = (rows @ keys.T).topk(min(k, len(keys)), dim=1)
        votes = near.values.new_zeros(len(rows), num_classes).scatter_add_(
            1, labels[near.indices], (near.values / temperature).exp()
        )
        found.append(votes.argmax(1))
    return torch.cat(found)


def ridge(train: Tensor, targets: Tensor, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Linear readout of many targets ``[n f]`` at once; each target has the penalty that is best on a fifth of `train`.

    Features are centred and scaled to variance 1 first; at the end all of `train` is fitted again.

    Checked:   tests/evals/other/test_vision.py - against scikit-learn's at one penalty; a planted direction is found.
    """
    x = train if train.shape[1] > 1024 else train.double()  # wide ones would take minutes
    y = targets.to(x.dtype)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    held, rest = order[: len(x) // 5], order[len(x) // 5 :]
    mean, weights, bias = _fits(x[rest], y[rest], PENALTIES)
    errors = torch.stack([((x[held] - mean) @ weight + bias - y[held]).square().mean(0) for weight in weights])
    best, columns = errors.argmin(0), torch.arange(y.shape[1])
    used = best.unique()
    mean, weights, bias = _fits(x, y, [PENALTIES[int(number)] for number in used])
    weight = torch.stack(weights)[torch.searchsorted(used, best), :, columns].T
    return lambda features: ((features.to(x.dtype) - mean) @ weight + bias).float()


def _fits(x: Tensor, y: Tensor, penalties: Sequence[float]) -> tuple[Tensor, list[Tensor], Tensor]:
    """Mean of the features, weights for each penalty, bias; whichever of the two normal equations is the smaller."""
    mean, scale, bias = x.mean(0), x.std(0).clamp(min=1e-8), y.mean(0)
    scaled, rest, wide = (x - mean) / scale, y - bias, x.shape[0] < x.shape[1]
    gram = (scaled @ scaled.T if wide else scaled.T @ scaled) / len(x)
    known = (rest if wide else scaled.T @ rest) / len(x)
    eye = torch.eye(len(gram), dtype=gram.dtype)
    solved = [torch.cholesky_solve(known, torch.linalg.cholesky(gram + penalty * eye)) for penalty in penalties]
    return mean, [(scaled.T @ weight if wide else weight) / scale[:, None] for weight in solved], bias


def linear_probe(train: Tensor, labels: Tensor, test: Tensor, *, epochs: int = 10, seed: int = 0) -> Tensor:
    """Class of each test row by a linear classifier: all learning rates at once, the best on a tenth of `train`.

    SGD with momentum 0.9 and cosine decay, batches of 128, no weight decay; features are standardised as by a
    batch norm without affine.

    Source:    Oquab et al. 2023 (DINOv2), arXiv:2304.07193, linear evaluation. Differs: epochs over the data at hand,
               features of one depth, standardised.
    Checked:   tests/evals/other/test_vision.py - separable features, noise at chance, no look at test rows.
    """
    draw = torch.Generator().manual_seed(seed)
    mean, std = train.mean(0), train.std(0).clamp(min=1e-6)
    x, rates = (train - mean) / std, torch.tensor(LEARNING_RATES)
    order = torch.randperm(len(x), generator=draw)
    held, rest = order[: len(x) // 10], order[len(x) // 10 :]
    num_classes = int(labels.max()) + 1
    weight, bias = torch.zeros(len(rates), x.shape[1], num_classes), torch.zeros(len(rates), 1, num_classes)
    speed = [torch.zeros_like(weight), torch.zeros_like(bias)]
    steps = epochs * -(-len(rest) // 128)
    batches = (batch for _ in range(epochs) for batch in rest[torch.randperm(len(rest), generator=draw)].split(128))
    for step, batch in enumerate(batches):
        logits = x[batch] @ weight + bias
        slope = (logits.softmax(-1) - F.one_hot(labels[batch], num_classes)) / len(batch)
        decay = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)))
        for value, velocity, gradient in (
            (weight, speed[0], x[batch].T @ slope),
            (bias, speed[1], slope.sum(1, keepdim=True)),
        ):
            velocity.mul_(0.9).add_(gradient)
            value -= (rates * decay)[:, None, None] * velocity
    hits = ((x[held] @ weight + bias).argmax(-1) == labels[held]).float().mean(1)
    best = int(hits.argmax())
    return (((test - mean) / std) @ weight[best] + bias[best]).argmax(-1)


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


def accuracy(guess: Tensor, truth: Tensor) -> float:
    """Share that is right."""
    return float((guess == truth).float().mean())


def skill(guess: Tensor, truth: Tensor) -> float:
    """``(accuracy - chance) / (1 - chance)``; chance = share of the largest class."""
    chance = float(truth.bincount().max()) / len(truth)
    return (accuracy(guess, truth) - chance) / (1 - chance) if chance < 1 else float("nan")


def r_squared(guess: Tensor, truth: Tensor) -> float:
    """``1 - squared error / variance``, pooled over columns."""
    spread = (truth - truth.mean(0)).square().sum()
    return float(1 - (guess - truth).square().sum() / spread) if spread > 0 else float("nan")
