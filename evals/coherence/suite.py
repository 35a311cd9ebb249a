"""From a run or checkpoint to the scores of every section and depth, each beside its nulls."""

import dataclasses
import math
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from typing import Any

from latentlm.config import dump
from latentlm.data import Facts
from latentlm.recipe import load_recipe
from latentlm.tap import resolve_depth

from ..encoder import load_encoder
from ..runs import is_run, write_result
from . import nouns as about_nouns
from . import pairs as about_pairs
from .families import mentions
from .lens import Lens
from .nouns import CONCEPTS, Exchange, Nouns
from .options import Options
from .probes import CoherenceWarning, fit_probe, skill
from .transforms import all_texts, read_states, transform_scores

VERSION = 2  # of the scores: raise it when the same model would get other numbers
DEFAULTS = Options()
LOWER = ("fracture", "num_readouts", "leak", "gap", "law_error")  # lower is better
UNKNOWN = 0.01  # share of unknown tokens above which the generated sentences are not the model's language

Scores = dict[str, dict[str, float]]


def run(name: str, options: Options = DEFAULTS) -> dict:
    """Score a run folder, or any checkpoint or adapter of a causal language model, and write the result."""
    lens = Lens(load_encoder(name, options.device), options.batch_size)
    depths = sorted({resolve_depth(depth, lens.backbone.num_layers) for depth in options.depths})
    data = load_recipe(f"{name}/recipe.yaml").data if is_run(name) else None
    notes: list[str] = []
    scores, matrices = measure(lens, depths, options, data, notes)
    if options.random_init:
        twin, _ = measure(lens.random_init(options.seed), depths, dataclasses.replace(options, base=None), data, [])
        for task, row in scores.items():
            row |= {f"{key}_random": value for key, value in twin.get(task, {}).items() if _has_null(key)}
    result = {
        "results": {
            f"coherence/{task}": {"alias": task} | {f"{key},none": _plain(value) for key, value in row.items()}
            for task, row in scores.items()
        },
        "warnings": notes,
        "transfer": matrices,
        "config": {
            "model": type(lens.model).__name__,
            "model_path": name,
            "depths": depths,
            "num_layers": lens.backbone.num_layers,
            "options": dump(options),
            "software": {package: version(package) for package in ("latentlm", "torch", "transformers")},
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
        "versions": {f"coherence/{task}": VERSION for task in scores},
        "higher_is_better": {f"coherence/{task}": {k: k not in LOWER for k in row} for task, row in scores.items()},
    }
    write_result(result, "coherence", name, options.out)
    return result


def measure(lens: Lens, depths: list[int], options: Options, data: Any, notes: list[str]) -> tuple[Scores, dict]:
    """Scores of every section, and the transfer matrices; what has no meaning is said in `notes`."""
    scores: Scores = {}
    matrices: dict[str, list] = {}
    speaks = _speaks(lens, options, notes)
    wanted = set(options.sections)
    if speaks and wanted & {"stability", "detail", "units", "causal"}:
        _nouns(lens, depths, options, scores, matrices, notes)
    if speaks and "equivariance" in wanted:
        for kind, rows in all_texts(options.seed, options.entities).items():
            states = read_states(lens, rows, depths)
            for place, depth in enumerate(depths):
                with _noted(notes, f"equivariance/{kind}@{depth}"):
                    here = {name: state[:, place] for name, state in states.items()}
                    found = transform_scores(rows, here, kind, options.components, options.seed)
                    scores |= {f"equivariance/{name}@{depth}": row for name, row in found.items()}
    facts = about_pairs.run_pairs(data, options.entities) if isinstance(data, Facts) else []
    for group in facts or (about_pairs.world_pairs(options.entities) if speaks else []):
        states = about_pairs.pair_states(lens, group, depths) if "binding" in wanted else {}
        for place, depth in enumerate(depths if states else []):
            with _noted(notes, f"binding/{group.name}@{depth}"):
                here = {name: state[:, place] for name, state in states.items()}
                scores[f"binding/{group.name}@{depth}"] = about_pairs.pair_scores(
                    here, options.components, options.seed
                )
        if "coupling" in wanted:
            with _noted(notes, f"coupling/{group.name}"):
                scores[f"coupling/{group.name}"] = about_pairs.coupling_scores(lens, group, options.updates)
    return scores, matrices


def _nouns(lens: Lens, depths: list[int], options: Options, scores: Scores, matrices: dict, notes: list[str]) -> None:
    by_depth, base = _states(lens, depths, options), {}
    if options.base and "detail" in options.sections:
        other = Lens(load_encoder(options.base, options.device), options.batch_size)
        if other.backbone.num_layers != lens.backbone.num_layers:
            raise ValueError(f"base: {options.base} has {other.backbone.num_layers} blocks, not as many as the model")
        base = _states(other, depths, options)
    flips = {}
    if "units" in options.sections:
        with _noted(notes, "units/category"):
            flips = about_nouns.flip_scores(lens, depths, by_depth, "category", options.noise)
    for depth, nouns in by_depth.items():
        exchange = Exchange(lens, nouns, depth, options.pairs) if "causal" in options.sections else None
        for concept in CONCEPTS:
            parts: dict[str, Callable[[], dict[str, float]]] = {
                "stability": partial(about_nouns.stability_scores, nouns, concept),
                "detail": partial(about_nouns.detail_scores, nouns, concept, base.get(depth)),
                "units": partial(about_nouns.unit_scores, nouns, concept),
            }
            if exchange is not None:
                parts["causal"] = partial(exchange.scores, concept, _within(nouns, concept))
            for section in (name for name in parts if name in options.sections):
                with _noted(notes, f"{section}/{concept}@{depth}"):
                    scores[f"{section}/{concept}@{depth}"] = parts[section]()
            if "stability" in options.sections:
                matrices[f"{concept}@{depth}"] = about_nouns.transfer_matrix(nouns, concept)
        if depth in flips:
            scores[f"units/category@{depth}"] |= flips[depth]


def _states(lens: Lens, depths: list[int], options: Options) -> dict[int, Nouns]:
    rows = mentions(options.seed, options.nouns)
    raw = lens.states([row.text for row in rows], depths, [row.span for row in rows])
    return {depth: Nouns(rows, raw[:, k], options.components, options.seed) for k, depth in enumerate(depths)}


def _within(nouns: Nouns, concept: str) -> float:
    """Skill of the probe whose subspace is exchanged, in the contexts in which it is."""
    families = [nouns.family(context, nouns.labels(concept)) for context in about_nouns.SWAPPED_IN]
    found = [skill(fit_probe(f.train, f.train_labels), f.test, f.test_labels) for f in families]
    return sum(found) / len(found)


def _speaks(lens: Lens, options: Options, notes: list[str]) -> bool:
    texts = [row.text for row in mentions(options.seed, 3)]
    share = lens.unknown(texts)
    if share > UNKNOWN:
        notes.append(
            f"generated sentences: unknown_words: {share:.0%} of their tokens are unknown to the tokenizer; "
            "stability, detail, units, causal and equivariance are left out"
        )
    return share <= UNKNOWN


@contextmanager
def _noted(notes: list[str], where: str):
    """Keep the warnings about a score, with the place that they are about."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CoherenceWarning)
        yield
    for warning in caught:
        if not issubclass(warning.category, CoherenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        elif (note := f"{where}: {warning.message}") not in notes:
            notes.append(note)


def _has_null(key: str) -> bool:
    return not key.endswith(("_shuffled", "_chance", "_sd", "_stderr", "_control", "explained"))


def _plain(value: float) -> float | None:
    """JSON has no NaN; a score that does not exist is null, and a warning says why."""
    return float(value) if math.isfinite(value) else None
