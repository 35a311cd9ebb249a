"""Scores of the states of one property at every depth: folds, nulls, code lengths, directions.

Letters: ``l`` depths, ``n`` inputs, ``d`` width.
"""

import math
import random
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from latentlm.result import Estimate
from latentlm_evals.probes.layerwise import (
    SIZES,
    axes,
    codelength,
    fewest,
    fit_linear,
    fit_mlp,
    logits,
    mlp_logits,
    pls_basis,
    spanned,
    standardized,
)
from latentlm_evals.probing.folds import control, shared_folds
from latentlm_evals.probing.properties import Property
from latentlm_evals.statistics.bootstrap import bounded_mean
from latentlm_evals.statistics.folds import Fold
from latentlm_evals.statistics.scores import chance_rate

Told = Callable[[Sequence[Fold]], Iterable[Fold]]  # shows how far it is


def linear_hits(states: Tensor, labels: Sequence[Tensor], classes: int, parts: Iterable[Fold]) -> Tensor:
    """Whether linear probes of the other folds are right about each input, for every labelling: ``[k l n]``."""
    hits = torch.zeros(len(labels), *states.shape[:2])
    for train, test in parts:
        x, x_test = spanned(*standardized(states[:, train], states[:, test]))
        for found, y in zip(hits, labels, strict=True):
            found[:, test] = _right(logits(x_test, fit_linear(x, y[train], classes)), y[test])
    return hits


def probe(states: Tensor, each: Property, parts: Sequence[Fold], seed: int, told: Told = list) -> dict[str, Tensor]:
    """Scores of states ``[l n d]`` at every depth ``[l]``, and the hits ``[l n]`` that `chosen` and `rate` read."""
    y, classes = torch.tensor(each.labels), each.classes
    rng = random.Random(f"probing/{seed}/{each.name}")
    shuffled = torch.tensor(rng.sample(each.labels, len(each.labels)))
    hits: dict[tuple[str, int], Tensor] = {}
    for train, test in told(parts):
        x, x_test = axes(*standardized(states[:, train], states[:, test]))
        for name, found in _guesses(x, y[train], x_test, classes).items():
            hits.setdefault(name, torch.zeros(states.shape[:2]))[:, test] = _right(found, y[test])
        null = logits(x_test, fit_linear(x, shuffled[train], classes))
        hits.setdefault(("shuffled", 0), torch.zeros(states.shape[:2]))[:, test] = _right(null, shuffled[test])
    rates = {name: hit.mean(-1) for name, hit in hits.items()}
    acc = rates["linear", 0]
    scores = {"hits": hits["linear", 0], "acc": acc, "mlp_gap": rates["mlp", 0] - acc, "shuffled": rates["shuffled", 0]}
    for kind in ("pca", "pls"):
        sizes = {size: rate for (name, size), rate in rates.items() if name == kind}
        scores[f"{kind}_k"] = fewest(acc, sizes, chance_rate(each.labels))
    return scores | _controlled(states, each, y, rng)


def _guesses(x: Tensor, y: Tensor, x_test: Tensor, classes: int) -> dict[tuple[str, int], Tensor]:
    """Logits of every kind of probe, in the principal axes of the training states."""
    found = {
        ("linear", 0): logits(x_test, fit_linear(x, y, classes)),
        ("mlp", 0): mlp_logits(x_test, fit_mlp(x, y, classes)),
    }
    leading = pls_basis(x, y, classes, max(SIZES))
    for size in sorted({min(size, leading.shape[-1]) for size in SIZES}):
        part = leading[..., :size]
        found["pca", size] = logits(x_test[..., :size], fit_linear(x[..., :size], y, classes))
        found["pls", size] = logits(x_test @ part, fit_linear(x @ part, y, classes))
    return found


def _controlled(states: Tensor, each: Property, y: Tensor, rng: random.Random) -> dict[str, Tensor]:
    """Selectivity and code lengths, beside the same for labels drawn at random for each entity.

    Both on inputs in random order, where training and test share the entities: else nobody could learn the control.
    """
    drawn = control(each, rng)
    parts = shared_folds(len(y), rng)
    order = torch.tensor(rng.sample(range(len(y)), len(y)))
    (x,) = spanned(*standardized(states[:, order]))
    uniform = len(y) * math.log2(each.classes)
    scores = {"compression": uniform / codelength(x, y[order], each.classes)}
    if drawn is None:
        return scores
    other = torch.tensor(drawn)
    task, memory = linear_hits(states, [y, other], each.classes, parts).mean(-1)
    return scores | {
        "selectivity": task - memory,
        "compression_control": uniform / codelength(x, other[order], each.classes),
    }


def chosen(hits: Tensor, parts: Sequence[Fold]) -> tuple[Tensor, list[int]]:
    """Hits ``[n]`` at the depth that is best for the entities and templates of the other folds, and those depths."""
    found, places = torch.zeros(hits.shape[1]), []
    for train, test in parts:
        places.append(int(hits[:, train].mean(-1).argmax()))
        found[test] = hits[places[-1], test]
    return found, places


def rate(hits: Tensor, each: Property, higher_is_better: bool | None = None) -> Estimate:
    """Mean of the hits ``[n]`` with its standard error and 95 % interval, drawing whole entities."""
    return bounded_mean(hits, each.entities, higher_is_better=higher_is_better)


def _right(scores: Tensor, y: Tensor) -> Tensor:
    return (scores.argmax(-1) == y).float()
