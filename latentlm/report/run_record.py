"""What a run folder holds, read once and without judging it."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from latentlm.report.eval_results import Source, merge, read_json, sources

Curve = list[tuple[int, float]]

# file -> the command that makes it
MAKERS = {
    "recipe.yaml": "latentlm train RECIPE",
    "run.json": "latentlm train RECIPE",
    "eval/reversal.json": "latentlm eval reversal {run}",
    "depth.json": "latentlm train RECIPE",
}
SPLITS = (
    "same",
    "reverse",
    "both",
    "composition",
    "same_in_context",
    "reverse_in_context",
    "shortcut",
    "non_reciprocal",
)
ERRORS = ("shortcut", "non_reciprocal")  # rates of a mistake: lower is better
# what a task must hold for its own section; others stand in the table of all scores
NEEDED = {
    "reversal": {"exact", "exact_low", "exact_high", "contains"},
    "probe": {"acc", "acc_low", "acc_high", "chance"},
}


@dataclass(frozen=True)
class Task:
    """The scores of one group of test items."""

    subset: str
    split: str
    asks: str
    scores: dict[str, float]
    counts: dict[str, Any]

    @property
    def asked(self) -> str:
        """What is asked in which direction, as people read it."""
        return f"{self.split.replace('_', ' ')} > {self.asks}"

    @property
    def key(self) -> tuple[str, int, str]:
        """Sorts a subset's trained direction before the reverse one."""
        return self.subset, SPLITS.index(self.split) if self.split in SPLITS else len(SPLITS), self.asks


@dataclass(frozen=True)
class Probe:
    """What was read off the states for one property: scores over depth, and at the depth that other inputs chose."""

    name: str
    depths: list[int]
    scores: dict[str, list[float]]
    chosen: dict[str, float]

    def gain(self) -> list[float]:
        """Accuracy over depth, 0 at the share of the largest class and 1 where all is right."""
        pairs = zip(self.scores["acc"], self.scores["chance"], strict=True)
        return [max(0.0, (accuracy - chance) / (1 - chance)) for accuracy, chance in pairs]

    def best(self) -> int:
        """Place of the depth with the highest accuracy, the shallowest of several."""
        return max(range(len(self.depths)), key=lambda k: self.scores["acc"][k])


@dataclass(frozen=True)
class Run:
    """A run folder, another checkpoint's folder or result files; None stands for a file that is not there.

    Attributes:
        contexts: names of the rows and columns of `transfer`, if the result says them.
        others: scores without a section of their own; nan stands for one that does not exist.
        merged: all its results as one, in lm-eval's shape.
    """

    path: Path
    label: str
    curves: dict[str, Curve]
    words: dict[str, list[tuple[int, str]]]
    recipe: dict[str, Any] | None
    facts: dict[str, Any] | None
    depth: dict[str, Any] | None
    tasks: list[Task] | None
    probes: list[Probe] | None
    transfer: dict[str, list[list[float]]]
    contexts: list[str]
    others: dict[str, dict[str, float]]
    warnings: list[str]
    merged: dict[str, Any]
    is_trained: bool

    @property
    def reads_images(self) -> bool:
        """Whether it was trained on images, so that nobody can ask it in words."""
        return ((self.recipe or {}).get("data") or {}).get("kind") == "images"

    def last(self, name: str) -> float | None:
        """Latest value of a metric."""
        return self.curves[name][-1][1] if name in self.curves else None

    def command(self, file: str) -> str:
        """The command line that makes a file of this run."""
        return MAKERS[file].format(run=self.path)


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read all; labels are the names of folders or files, with the parent's where two are called alike."""
    if not paths:
        raise ValueError("runs: none given: name at least one run folder")
    found = sources(paths)
    names = [source.name.resolve().name.removesuffix(".json") for source in found]
    labels = [
        name if names.count(name) == 1 else f"{source.name.resolve().parent.name}/{name}"
        for source, name in zip(found, names, strict=True)
    ]
    if len(set(labels)) < len(labels):
        labels = [f"{k + 1}: {label}" for k, label in enumerate(labels)]
    return [_read(source, label) for source, label in zip(found, labels, strict=True)]


def _read(source: Source, label: str) -> Run:
    path = source.path
    metrics, recipe = path / "metrics.jsonl", path / "recipe.yaml"
    if not metrics.is_file() and not source.files:
        raise ValueError(
            f"{path}: has no metrics.jsonl and no eval/*.json: name a run folder made by `latentlm train`, a folder "
            "with results in eval/, or a result file that `latentlm eval ... --out FILE` has written"
        )
    curves, words = _curves(metrics) if metrics.is_file() else ({}, {})
    merged = merge(source.files)
    by_kind: dict[str, dict[str, dict[str, float]]] = {}
    for task, row in merged["results"].items():
        scores = {
            key.removesuffix(",none"): math.nan if value is None else float(value)
            for key, value in row.items()
            if key.endswith(",none") and isinstance(value, int | float | None)
        }
        by_kind.setdefault(_kind(task, scores), {})[task] = scores
    return Run(
        path=path,
        label=label,
        curves=curves,
        words=words,
        recipe=yaml.safe_load(recipe.read_text(encoding="utf-8")) or {} if recipe.is_file() else None,
        facts=read_json(path / "run.json"),
        depth=read_json(path / "depth.json"),
        tasks=_tasks(by_kind["reversal"], merged["n-samples"]) if "reversal" in by_kind else None,
        probes=_probes(by_kind["probe"]) if "probe" in by_kind else None,
        transfer={
            name: [[math.nan if value is None else float(value) for value in line] for line in square]
            for name, square in merged["transfer"].items()
        },
        contexts=[str(name) for name in merged.get("contexts", [])],
        others=by_kind.get("", {}),
        warnings=merged["warnings"],
        merged=merged,
        is_trained=metrics.is_file(),
    )


def _kind(task: str, scores: dict[str, float]) -> str:
    """The section that a task belongs to; empty: the one of all others."""
    kind, *rest = task.split("/")
    if any(math.isnan(scores.get(key, math.nan)) for key in NEEDED.get(kind, ())):
        return ""
    if kind == "reversal" and len(rest) >= 3:
        return kind
    return kind if kind == "probe" and len(rest) >= 2 and (rest[-1] == "chosen" or rest[-1].isdigit()) else ""


def _curves(path: Path) -> tuple[dict[str, Curve], dict[str, list[tuple[int, str]]]]:
    """Metric -> values over steps. A resumed run logs a step twice: the later line counts."""
    numbers: dict[str, dict[int, float]] = {}
    words: dict[str, dict[int, str]] = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else {}
        except json.JSONDecodeError:
            if number == len(lines):  # a run that was killed leaves half a line
                continue
            raise ValueError(f"{path}: line {number} is not JSON: repair or remove it") from None
        for name, value in row.items():
            if name.startswith("monitor/") and isinstance(value, list):  # the failures found; none is good news
                value = ", ".join(map(str, value)) or "ok"
            if name == "step" or isinstance(value, list | dict | None):
                continue
            if isinstance(value, str | bool):
                words.setdefault(name, {})[int(row["step"])] = str(value)
            else:
                numbers.setdefault(name, {})[int(row["step"])] = float(value)
    return {n: sorted(v.items()) for n, v in numbers.items()}, {n: sorted(v.items()) for n, v in words.items()}


def _tasks(rows: dict[str, dict[str, float]], counts: dict[str, Any]) -> list[Task]:
    tasks = []
    for name, scores in rows.items():
        subset, split, asks = name.removeprefix("reversal/").rsplit("/", 2)
        there = {key: value for key, value in scores.items() if not math.isnan(value)}
        tasks.append(Task(subset, split, asks, there, counts.get(name, {})))
    return sorted(tasks, key=lambda task: task.key)


def _probes(rows: dict[str, dict[str, float]]) -> list[Probe]:
    found: dict[str, list[tuple[int, dict[str, float]]]] = {}
    chosen: dict[str, dict[str, float]] = {}
    for name, scores in rows.items():
        read, where = name.removeprefix("probe/").rsplit("/", 1)
        if where == "chosen":
            chosen[read] = scores
        else:
            found.setdefault(read, []).append((int(where), scores))
    probes = []
    for read, places in found.items():
        places.sort(key=lambda place: place[0])
        keys = dict.fromkeys(key for _, scores in places for key in scores)
        series = {key: [scores.get(key, math.nan) for _, scores in places] for key in keys}
        probes.append(Probe(read, [depth for depth, _ in places], series, chosen.get(read, {})))
    return probes


def terms(runs: Sequence[Run]) -> list[str]:
    """Names of the terms of all runs' objectives, the next-token term first."""
    found = {name.removesuffix("/value") for run in runs for name in run.curves if name.endswith("/value")}
    return sorted((name for name in found if not name.startswith("monitor/")), key=lambda name: (name != "data", name))


def finite(curve: Curve) -> Curve:
    """Without NaN and infinities."""
    return [(step, value) for step, value in curve if math.isfinite(value)]
