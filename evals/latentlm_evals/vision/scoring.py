"""Every score of one network on one set of images."""

import math
import time
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from latentlm.config.schema import dump
from latentlm.data.images import Pictures, Scenes
from latentlm.data.images.dataset import Source
from latentlm.result import Estimate, Result, Task, TaskKey
from latentlm_evals.models.image_encoder import ImageEncoder
from latentlm_evals.models.images import check_parts, pictures
from latentlm_evals.probes.context_probes import CoherenceWarning
from latentlm_evals.probes.frozen_features import attentive_probe, knn, linear_probe
from latentlm_evals.statistics.scores import accuracy
from latentlm_evals.vision.encode import pixels, side, states
from latentlm_evals.vision.factors import CHANGES, acts, by_level, change, decode, fractures, later_task, movable
from latentlm_evals.vision.features import Reader, readers
from latentlm_evals.vision.finetune import finetune
from latentlm_evals.vision.options import Options
from latentlm_evals.vision.pixels import decoded_pixels, linear_pixels, patches_of

VERSION = 2  # of the scores: raise it when the same network and images would get other numbers
NAME = "vision"
PROBES = ("knn", "linear", "attentive", "finetune")
WIDE = 1024  # an affine map of wider features has far more weights than there are pairs


Results = dict[str, dict[str, Estimate]]


def evaluate(
    encoder: ImageEncoder, source: Source, options: Options, shown: tuple[Pictures, Pictures] | None = None
) -> Result:
    """All scores, a task for each depth and each floor; what has no meaning is left out, and ``warnings`` say why.

    `shown` are the images to fit readouts on and to score them on, where they have been read already.
    """
    started = time.monotonic()
    if shown is None:
        shown = (
            pictures(source, "train", options.num_train, options.seed, encoder),
            pictures(source, "test", options.num_test, options.seed, encoder),
        )
    train, test = shown
    scenes = source if isinstance(source, Scenes) else None
    held_out = pictures(source, "held_out", options.num_test // 2, options.seed) if scenes else None
    label, told = main_label(train), check_parts(train, test, main_label(train))
    if label is None:
        told.append("classes: these images have none, so there are no accuracies; give a folder for each class")
        if not options.pixels:
            raise ValueError(f"source: {told[0].removeprefix('classes: ')}, or pixels=400 for what is left of them")
    results: Results = {}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CoherenceWarning)
        torch.manual_seed(options.seed)
        for name, reader in readers(encoder, train.images, options.at, options.floors, options.seed).items():
            _read(results, name, reader, train, test, held_out, scenes, options)
        for name, network in _networks(encoder, options).items():
            _tops(results, name, network, train, test, options)
    if label and options.floors:
        results["chance"] = _chance(train.labels[label], test.labels[label], results)
    samples = {"train": len(train.images), "test": len(test.images)}
    tasks = {
        TaskKey(NAME, (name,)): Task(
            {key: score for key, score in scores.items() if not math.isnan(score.value)}, name, samples, VERSION
        )
        for name, scores in results.items()
    }
    config = {
        "model": type(encoder.model).__name__,
        "source": repr(source),
        "at": options.at,
        "options": dump(options),
        "seconds": round(time.monotonic() - started, 1),
    }
    # why a score is missing
    return Result.measured(tasks, config, told + sorted({str(each.message) for each in caught}))


def _progress(steps: Iterable[Any], title: str, num: int) -> Iterable[Any]:
    """Steps with a bar, or a line at the start where there is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"{title}: {num} features", highlight=False)
    return track(steps, title, num, transient=True, console=console, disable=not console.is_terminal)


def _chance(train: np.ndarray, test: np.ndarray, results: Results) -> dict[str, Estimate]:
    """Accuracy of the class that most training images have, for every probe that was fitted."""
    common = torch.from_numpy(np.full(len(test), np.bincount(train).argmax()))
    probes = {key for scores in results.values() for key in scores if key in PROBES}
    return {
        key: score
        for each in PROBES
        if each in probes
        for key, score in _rate(each, common, torch.from_numpy(test)).items()
    }


def _networks(encoder: ImageEncoder, options: Options) -> dict[str, ImageEncoder]:
    floor = {"random": encoder.random_init(options.seed)} if options.floors else {}
    return {"depth": encoder} | floor


def main_label(picture: Pictures) -> str | None:
    """What probes are asked for: the class of an image, or which animal a scene shows; None where all are of one."""
    names = (name for name in ("label", "identity") if name in picture.labels)
    return next((name for name in names if len(np.unique(picture.labels[name])) > 1), None)


def _read(
    results: Results,
    title: str,
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
    for name, features in _progress(fitted.items(), f"probes, {title}", len(fitted)):
        scores = results.setdefault(name, {})
        if label:
            x, y = torch.from_numpy(train.labels[label]), torch.from_numpy(test.labels[label])
            scores |= _rate("knn", knn(features, x, asked[name]), y)
            scores |= _rate("linear", linear_probe(features, x, asked[name], seed=options.seed), y)
        if scenes and held_out:
            asked_for = [(asked[name], test.labels), (new[name], held_out.labels)]
            known, unseen = decode(features, train.labels, asked_for)
            scores |= _better({f"level/{level}": value for level, value in by_level(known).items()})
            scores |= _better({f"factor/{factor}": value for factor, value in known.items()})
            scores |= _better({f"unseen/{part}": unseen[part] for part in ("body", "top")})
            if scenes.blackboard:
                later = later_task(features, train.labels, asked[name], test.labels)
                scores |= _better({f"later/{size}": value for size, value in later.items()})
        if scenes and features.shape[1] <= WIDE:
            broken = fractures(features, train.labels)
            scores |= {f"fracture/{key}": Estimate(value, higher_is_better=False) for key, value in broken.items()}
            for key, (before, after) in moved.items():
                found = acts(before[name], after[name])
                scores |= _better({f"change/{key}": found["eq_gain"], f"change/{key}_h@1": found["h@1"]})


def _pairs(scenes: Scenes, name: str, reader: Reader, options: Options) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    factors = movable(scenes.sample("test", max(options.num_test // 2, 20)), name)
    return reader(scenes.render(factors)), reader(scenes.render(change(scenes, factors, name)))


def _tops(
    results: Results,
    name: str,
    network: ImageEncoder,
    train: Pictures,
    test: Pictures,
    options: Options,
) -> None:
    top, label = results[f"{name} {network.num_layers}"], main_label(train)
    if label and options.attentive:
        x, y = torch.from_numpy(train.labels[label]), torch.from_numpy(test.labels[label])
        depths = [network.num_layers]
        patches = [states(network, images, "patches", depths)[:, 0] for images in (train.images, test.images)]
        top |= _rate("attentive", attentive_probe(patches[0], x, patches[1], seed=options.seed), y)
    if label and options.finetune:
        guess = finetune(network, train, test, label, epochs=options.finetune, seed=options.seed)
        top |= _rate("finetune", guess, torch.from_numpy(test.labels[label]))
    if options.pixels:
        some = [picture.images[: options.pixels] for picture in (train, test)]
        values = [patches_of(pixels(network, images), side(network, images)) for images in some]
        depths = range(network.num_layers + 1)
        for depth in _progress(depths, f"pixels, {name}", len(depths)):
            # depth by depth: all patches of all depths may not fit into memory
            read = [states(network, images, "patches", [depth])[:, 0] for images in some]
            given = read[0], values[0], read[1], values[1]
            scores = results[f"{name} {depth}"]
            scores |= _better({"pixels/linear": linear_pixels(*given)[0]})
            if options.decoder:
                decoded = decoded_pixels(*given, steps=options.decoder, seed=options.seed)[0]
                scores |= _better({"pixels/decoder": decoded})


def _rate(name: str, guess: Tensor, truth: Tensor) -> dict[str, Estimate]:
    rate = accuracy(guess, truth)
    return {name: Estimate(rate, float(np.sqrt(rate * (1 - rate) / len(truth))), higher_is_better=True)}


def _better(scores: dict[str, float]) -> dict[str, Estimate]:
    """Scores of which more is better."""
    return {name: Estimate(value, higher_is_better=True) for name, value in scores.items()}
