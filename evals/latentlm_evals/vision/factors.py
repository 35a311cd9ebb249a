"""What features tell about scenes: every factor, unseen combinations, a later task, changes, and fracture."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentlm.data.images.scenes import CLASSES, LEVELS, RANGES, Factors, Scenes
from latentlm_evals.coherence.measures.equivariance import equivariance, fit_action
from latentlm_evals.coherence.measures.stability import fracture
from latentlm_evals.probes.context_probes import Family
from latentlm_evals.probes.frozen_features import ridge
from latentlm_evals.statistics.scores import r_squared, skill

Labels = dict[str, np.ndarray]
CHANGES = ("shift", "grow", "recolour", "add_marble")


def decode(train: Tensor, labels: Labels, asked: Sequence[tuple[Tensor, Labels]]) -> list[dict[str, float]]:
    """How well each factor is read off linearly: skill over chance for classes, R^2 for magnitudes.

    The readouts are fitted on `train` once; there is one answer for each of `asked`.

    Checked:   tests/evals/other/test_vision.py - planted factors are found, absent ones are not.
    """
    targets, places, start = [], {}, 0
    for name, values in labels.items():
        target = torch.from_numpy(values)
        target = F.one_hot(target).double() if _is_class(values) else _standard(target, target)[:, None]
        places[name] = slice(start, start := start + target.shape[1])
        targets.append(target)
    read = ridge(train, torch.cat(targets, 1))
    answers = []
    for features, truths in asked:
        guess, scores = read(features), {}
        for name, values in labels.items():
            truth, part = torch.from_numpy(truths[name]), guess[:, places[name]]
            if _is_class(values):
                scores[name] = skill(part.argmax(1), truth)
            else:
                scores[name] = r_squared(part, _standard(truth, torch.from_numpy(values))[:, None].float())
        answers.append(scores)
    return answers


def by_level(scores: dict[str, float]) -> dict[str, float]:
    """Mean score of the factors of each level: what is to be kept, composed, ignored, or cannot be predicted."""
    have = {level: [scores[name] for name in names if name in scores] for level, names in LEVELS.items()}
    return {level: float(np.mean(values)) for level, values in have.items() if values}


def later_task(
    train: Tensor, labels: Labels, test: Tensor, truths: Labels, sizes: tuple[int, ...] = (100, 400, 1600)
) -> dict[str, float]:
    """Skill at reading the glyph on the board, from a few labels each."""
    return {
        str(size): decode(train[:size], {"chalk": labels["chalk"][:size]}, [(test, truths)])[0]["chalk"]
        for size in sizes
        if size <= len(train)
    }


def change(scenes: Scenes, factors: Factors, name: str) -> Factors:
    """The same scenes after one of `CHANGES`: 2 pixels to the right, a fifth larger, the next colour, a marble more."""
    to = {
        "shift": {"x": factors["x"] + 2},
        "grow": {"scale": factors["scale"] * 1.2},
        "recolour": {"colour": (factors["colour"] + 1) % CLASSES["colour"]},
        "add_marble": {"count": factors["count"] + 1},
    }
    return scenes.changed(factors, **to[name])


def movable(factors: Factors, name: str) -> Factors:
    """Scenes that stay in the range of the factors after the change."""
    keep = {
        "shift": factors["x"] + 2 < RANGES["x"][1],
        "grow": factors["scale"] * 1.2 < RANGES["scale"][1],
        "recolour": np.ones(len(factors["key"]), bool),
        "add_marble": factors["count"] < CLASSES["count"] - 1,
    }[name]
    return {key: values[keep] for key, values in factors.items()}


def acts(before: Tensor, after: Tensor) -> dict[str, float]:
    """Does the change act as one affine map on the features? Fitted on half of the pairs, tested on the other."""
    x, y, half = before.double().numpy(), after.double().numpy(), len(before) // 2
    return equivariance(fit_action(x[:half], y[:half]), x[half:], y[half:])


def fractures(features: Tensor, labels: Labels, seed: int = 0) -> dict[str, float]:
    """Does every context have a subspace of its own for the body? 0: one for all; 1: one for each.

    ``shuffled`` is the value where bodies are dealt out at random within each context.
    """
    draw = np.random.default_rng(seed)
    shuffled = labels["body"].copy()
    draw.shuffle(shuffled)
    return {
        "fur": _fracture(features, labels["body"], labels["fur"]),
        "relation": _fracture(features, labels["body"], labels["relation"]),
        "shuffled": _fracture(features, shuffled, labels["fur"]),
    }


def _fracture(features: Tensor, concept: np.ndarray, context: np.ndarray) -> float:
    rows = features.double().numpy()
    halves = [(rows[context == value], concept[context == value]) for value in np.unique(context)]
    return fracture([Family(*here, *here) for here in halves])[2]  # it reads the training half only


def _is_class(values: np.ndarray) -> bool:
    return values.dtype.kind in "iu"


def _standard(values: Tensor, like: Tensor) -> Tensor:
    return (values - like.mean()) / like.std().clamp(min=1e-8)
