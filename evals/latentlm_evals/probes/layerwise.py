"""Probes of every depth at once: linear and small nonlinear classifiers, their code length, and how few directions do.

Letters: ``l`` depths, ``n`` samples, ``d`` width, ``c`` classes.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

PORTIONS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)


def standardized(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """States ``[l n d]`` in units of the training states' own mean and deviation; a dead dimension stays 0."""
    mean, deviation = train.mean(1, keepdim=True), train.std(1, keepdim=True)
    scale = torch.where(deviation > 1e-6 * deviation.amax(-1, keepdim=True).clamp(min=1e-12), deviation, torch.inf)
    return tuple((each - mean) / scale for each in (train, *others))


def fit_linear(x: Tensor, y: Tensor, classes: int, decay: float = 1e-2, steps: int = 60) -> Tensor:
    """Weights ``[l d+1 c]`` of multinomial logistic regression at every depth, the last row the bias.

    min_W  mean_n CE(W^T x_n, y_n) + decay/2 |W|^2       (convex; all depths in one L-BFGS)
    """
    weights = torch.zeros(x.shape[0], x.shape[2] + 1, classes, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weights], max_iter=steps, tolerance_grad=1e-5, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = cross_entropy(logits(x, weights), y).mean(-1).sum() + decay / 2 * weights[:, :-1].square().sum()
        value.backward()
        return value

    solver.step(loss)
    return weights.detach()


def fit_mlp(
    x: Tensor, y: Tensor, classes: int, hidden: int = 64, steps: int = 150, decay: float = 1e-3
) -> list[Tensor]:
    """Weights of one hidden layer (GELU) at every depth, by full-batch AdamW; first weights from a fixed seed."""
    generator = torch.Generator().manual_seed(0)

    def first(rows: int, columns: int) -> Tensor:
        drawn = torch.randn(x.shape[0], rows, columns, generator=generator) * (rows - 1) ** -0.5
        drawn[:, -1] = 0
        return drawn.requires_grad_()

    layers = [first(x.shape[2] + 1, hidden), first(hidden + 1, classes)]
    optimizer = torch.optim.AdamW(layers, 1e-2, weight_decay=decay)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(mlp_logits(x, layers), y).mean(-1).sum().backward()
        optimizer.step()
    return [layer.detach() for layer in layers]


def logits(x: Tensor, weights: Tensor) -> Tensor:
    """``[l n c]``."""
    return x @ weights[:, :-1] + weights[:, -1:]


def mlp_logits(x: Tensor, layers: list[Tensor]) -> Tensor:
    """``[l n c]`` of `fit_mlp`."""
    return logits(F.gelu(logits(x, layers[0])), layers[1])


def cross_entropy(scores: Tensor, y: Tensor) -> Tensor:
    """``[l n]`` in nats."""
    return F.cross_entropy(scores.flatten(0, 1), y.repeat(scores.shape[0]), reduction="none").view(scores.shape[:2])


def codelength(x: Tensor, y: Tensor, classes: int) -> Tensor:
    """Bits to send the labels with an online code at every depth ``[l]``.

        MDL = n_1 log2 C + sum_i  -log2 p_i(labels of portion i+1),   p_i fitted on the portions up to i

    Samples must come in random order. Uniform labels cost ``n log2 C``; what a probe saves below that, the states tell.

    Source: Voita & Titov 2020, arXiv:2003.12298 (online code).
    """
    ends = sorted({max(2 * classes, round(portion * x.shape[1])) for portion in PORTIONS})
    ends = [end for end in ends if end < x.shape[1]] + [x.shape[1]]
    bits = torch.full((x.shape[0],), ends[0] * math.log2(classes))
    for start, end in itertools.pairwise(ends):
        weights = fit_linear(x[:, :start], y[:start], classes)
        bits += cross_entropy(logits(x[:, start:end], weights), y[start:end]).sum(-1) / math.log(2)
    return bits


def spanned(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """The same states in an orthonormal basis of the span of the training ones, ``[l n r]``, if that is not all.

    Nothing is lost: what lies outside the span gets no gradient, and no weight of a penalised probe.
    """
    if train.shape[1] >= train.shape[2]:
        return train, *others
    basis = torch.linalg.qr(train.mT).Q
    return tuple(each @ basis for each in (train, *others))


def axes(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """`spanned`, turned to the principal axes of the training states, the largest first."""
    inside = spanned(train, *others)
    turn = torch.linalg.eigh(inside[0].mT @ inside[0]).eigenvectors.flip(-1)
    return tuple(each @ turn for each in inside)


def pls_basis(x: Tensor, y: Tensor, classes: int, size: int) -> Tensor:
    """Orthonormal basis ``[l d k]`` of the first partial least squares components; the first j span the first j.

        S = X^T Y;  r = dominant left singular vector of S;  t = X r;  p = X^T t / t^T t;  S := S without span(p_1 .. p)

    Source: de Jong 1993, SIMPLS; Y = one-hot labels, centred.
    Checked: tests/evals/other/test_probing.py - the spans of scikit-learn's PLSRegression.
    """
    one_hot = F.one_hot(y, classes).to(x)
    left = x.mT @ (one_hot - one_hot.mean(0))
    loadings, weights = x.new_zeros(*left.shape[:2], 0), []
    for _ in range(min(size, x.shape[1] - 1, x.shape[2])):
        found = left @ torch.linalg.eigh(left.mT @ left).eigenvectors[..., -1:]
        found = found / found.norm(dim=1, keepdim=True).clamp(min=1e-12)
        score = x @ found
        loading = x.mT @ score
        for _ in range(2):  # once leaves rounding behind
            loading = loading - loadings @ (loadings.mT @ loading)
        loading = loading / loading.norm(dim=1, keepdim=True).clamp(min=1e-12)
        left = left - loading @ (loading.mT @ left)
        loadings, weights = torch.cat([loadings, loading], -1), [*weights, found]
    return torch.linalg.qr(torch.cat(weights, -1)).Q


def fewest(full: Tensor, parts: dict[int, Tensor], chance: float, share: float = 0.95) -> Tensor:
    """Fewest directions whose accuracy ``[l]`` reaches `share` of the full probe's gain over chance.

    A depth at which nothing is decoded, or at which none reaches it, gets NaN.
    """
    found = torch.full_like(full, torch.nan)
    for size, reached in sorted(parts.items(), reverse=True):
        enough = (reached - chance >= share * (full - chance)) & (full > chance + 0.05)
        found = torch.where(enough, float(size), found)
    return found
