"""Every score of one network on one set of images, in the JSON shape of lm-eval."""

import math
import time
import warnings
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from latentlm.data.images import Pictures, Scenes
from latentlm.data.images.dataset import Source
from latentlm_evals.models.image_encoder import ImageEncoder
from latentlm_evals.probes.context_probes import CoherenceWarning
from latentlm_evals.probes.frozen_features import accuracy, attentive_probe, knn, linear_probe
from latentlm_evals.vision.encode import pixels, side, states
from latentlm_evals.vision.factors import CHANGES, acts, by_level, change, decode, fractures, later_task, movable
from latentlm_evals.vision.features import Reader, pictures, readers
from latentlm_evals.vision.finetune import finetune
from latentlm_evals.vision.pixels import decoded_pixels, linear_pixels, patches_of

VERSION = 1  # of the scores: raise it when the same network and images would get other numbers
WIDE = 1024  # an affine map of wider features has far more weights than there are pairs


@dataclass(frozen=True)
class Options:
    """What is evaluated on which images.

    Args:
        source: images to evaluate on, such as scenes or fashion_mnist; None: those of the run's recipe.
        num_train, num_test: images to fit readouts on, and to score them on.
        at: mean reads the mean of the patches, cls the class token, both the two beside each other.
        floors: score fresh weights, raw pixels and 64 principal components beside the network.
        attentive: also fit an attentive probe on the top.
        pixels: images on which pixels are decoded; 0: none.
        decoder: steps for which the small decoder of pixels is trained; 0: only the linear map.
        finetune: passes over the images when all weights are trained; 0: not done.
        figures: draw the pictures beside the result.
        seed: of subsets, splits, fresh weights and probes.
        device: torch device; None: the GPU if there is one.
        out: result file; None: eval/vision.json in the run folder.
    """

    source: Source | None = None
    num_train: int = 4000
    num_test: int = 2000
    at: Literal["mean", "cls", "both"] = "mean"
    floors: bool = True
    attentive: bool = True
    pixels: int = 400
    decoder: int = 200
    finetune: int = 0
    figures: bool = True
    seed: int = 0
    device: str | None = None
    out: str | None = None

    def __post_init__(self) -> None:
        for key, least in (
            ("num_train", 50),
            ("num_test", 20),
            ("pixels", 0),
            ("decoder", 0),
            ("finetune", 0),
            ("seed", 0),
        ):
            if getattr(self, key) < least:
                raise ValueError(f"{key}: {getattr(self, key)}; set it to {least} or more")


def evaluate(encoder: ImageEncoder, source: Source, options: Options) -> dict[str, Any]:
    """All scores, a task for each depth and each floor; what has no meaning is left out, and ``warnings`` say why."""
    started = time.monotonic()
    train = pictures(source, "train", options.num_train, options.seed)
    test = pictures(source, "test", options.num_test, options.seed)
    scenes = source if isinstance(source, Scenes) else None
    held_out = pictures(source, "held_out", options.num_test // 2, options.seed) if scenes else None
    results: dict[str, dict[str, float]] = {}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", CoherenceWarning)
        torch.manual_seed(options.seed)
        for reader in readers(encoder, train.images, options.at, options.floors, options.seed).values():
            _read(results, reader, train, test, held_out, scenes, options)
        for name, network in _networks(encoder, options).items():
            _tops(results, name, network, train, test, options)
    return {
        "results": {
            f"vision/{task}": {
                "alias": task,
                **{f"{name},none": value for name, value in scores.items() if not math.isnan(value)},
            }
            for task, scores in results.items()
        },
        "warnings": sorted({str(each.message) for each in told}),  # why a score is missing
        "config": {
            "model": type(encoder.model).__name__,
            "source": repr(source),
            "at": options.at,
            "seed": options.seed,
            "software": {name: version(name) for name in ("latentlm", "torch", "transformers")},
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - started, 1),
        },
        "versions": dict.fromkeys((f"vision/{task}" for task in results), VERSION),
        "n-samples": {f"vision/{task}": {"train": len(train.images), "test": len(test.images)} for task in results},
    }


def _networks(encoder: ImageEncoder, options: Options) -> dict[str, ImageEncoder]:
    floor = {"random": encoder.random_init(options.seed)} if options.floors else {}
    return {"depth": encoder} | floor


def main_label(picture: Pictures) -> str | None:
    """What probes are asked for: the class of an image, or which animal a scene shows."""
    return next((name for name in ("label", "identity") if name in picture.labels), None)


def _read(
    results: dict[str, dict[str, float]],
    reader: Reader,
    train: Pictures,
    test: Pictures,
    held_out: Pictures | None,
    scenes: Scenes | None,
    options: Options,
) -> None:
    fitted, asked = reader(train.images), reader(test.images)
    new = reader(held_out.images) if held_out else {}
    moved = {name: _pairs(scenes, name, reader, options) for name in CHANGES} if scenes else {}
    label = main_label(train)
    for name, features in fitted.items():
        scores = results.setdefault(name, {})
        if label:
            x, y = torch.from_numpy(train.labels[label]), torch.from_numpy(test.labels[label])
            scores |= _rate("knn", knn(features, x, asked[name]), y)
            scores |= _rate("linear", linear_probe(features, x, asked[name], seed=options.seed), y)
        if scenes and held_out:
            asked_for = [(asked[name], test.labels), (new[name], held_out.labels)]
            known, unseen = decode(features, train.labels, asked_for, options.seed)
            scores |= {f"level/{level}": value for level, value in by_level(known).items()}
            scores |= {f"factor/{factor}": value for factor, value in known.items()}
            scores |= {f"unseen/{part}": unseen[part] for part in ("body", "top")}
            if scenes.blackboard:
                later = later_task(features, train.labels, asked[name], test.labels)
                scores |= {f"later/{size}": value for size, value in later.items()}
        if scenes and features.shape[1] <= WIDE:
            scores |= {f"fracture/{key}": value for key, value in fractures(features, train.labels).items()}
            for key, (before, after) in moved.items():
                found = acts(before[name], after[name])
                scores |= {f"change/{key}": found["eq_gain"], f"change/{key}_h@1": found["h@1"]}


def _pairs(scenes: Scenes, name: str, reader: Reader, options: Options) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    factors = movable(scenes.sample("test", max(options.num_test // 2, 20)), name)
    return reader(scenes.render(factors)), reader(scenes.render(change(scenes, factors, name)))


def _tops(
    results: dict[str, dict[str, float]],
    name: str,
    network: ImageEncoder,
    train: Pictures,
    test: Pictures,
    options: Options,
) -> None:
    top, label = results[f"{name} {network.num_layers}"], main_label(train)
    if label and options.attentive:
        x, y = torch.from_numpy(train.labels[label]), torch.from_numpy(test.labels[label])
        patches = [states(network, images, "patches")[:, -1] for images in (train.images, test.images)]
        top |= _rate("attentive", attentive_probe(patches[0], x, patches[1], seed=options.seed), y)
    if label and options.finetune:
        guess = finetune(network, train, test, label, epochs=options.finetune, seed=options.seed)
        top |= _rate("finetune", guess, torch.from_numpy(test.labels[label]))
    if options.pixels:
        some = [picture.images[: options.pixels] for picture in (train, test)]
        read = [states(network, images, "patches") for images in some]
        values = [patches_of(pixels(network, images), side(network, images)) for images in some]
        for depth in range(network.num_layers + 1):
            given = read[0][:, depth], values[0], read[1][:, depth], values[1]
            scores = results[f"{name} {depth}"]
            scores["pixels/linear"] = linear_pixels(*given)[0]
            if options.decoder:
                scores["pixels/decoder"] = decoded_pixels(*given, steps=options.decoder, seed=options.seed)[0]


def _rate(name: str, guess: Tensor, truth: Tensor) -> dict[str, float]:
    rate = accuracy(guess, truth)
    return {name: rate, f"{name}_stderr": float(np.sqrt(rate * (1 - rate) / len(truth)))}
