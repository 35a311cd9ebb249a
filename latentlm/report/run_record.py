"""What a run folder holds, read once and without judging it."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentlm.config.yaml_reader import read_yaml
from latentlm.report.contract import Cell, EvaluatedRun
from latentlm.report.result_files import Source, sources
from latentlm.result import Result, merge
from latentlm.whole_files import read_json

Curve = list[tuple[int, float]]

# file -> the command that makes it
MAKERS = {
    "recipe.yaml": "latentlm train RECIPE",
    "run.json": "latentlm train RECIPE",
    "depth.json": "latentlm train RECIPE",
}


@dataclass(frozen=True)
class RunRecord:
    """A run folder, another checkpoint's folder or result files; None stands for a file that is not there.

    Attributes:
        path, label: of it; what it is called on the page.
        number: its place among the runs.
        curves, words: what was logged, by name.
        recipe, facts, depth: recipe.yaml, run.json and depth.json.
        result: all its results as one.
        files: that the results are from.
        problems: files that cannot be read, such as one that was cut short by a kill.
        is_trained: whether it has logged anything.
    """

    path: Path
    label: str
    number: int
    curves: dict[str, Curve]
    words: dict[str, list[tuple[int, str]]]
    recipe: dict[str, Any] | None
    facts: dict[str, Any] | None
    depth: dict[str, Any] | None
    result: Result
    files: list[Path]
    problems: list[str]
    is_trained: bool

    @property
    def dot(self) -> Cell:
        """Its label after a dot of its colour."""
        return Cell(self.label, run=self.number)

    @property
    def data_kind(self) -> str:
        """Kind of the data it was trained on: ``images``, or that of the texts' source; empty where nobody says."""
        kind = str(self.setting("data", "kind") or "")
        return kind if kind == "images" else str(self.setting("data", "source", "kind") or kind)

    def setting(self, *keys: str) -> Any:
        """A value of the recipe; None where there is none."""
        value: Any = self.recipe
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def last(self, name: str) -> float | None:
        """Latest value of a metric."""
        return self.curves[name][-1][1] if name in self.curves else None

    def command(self, file: str) -> str:
        """The command line that makes a file of this run."""
        return MAKERS[file].format(run=self.path)

    def evaluated(self, evaluation: str) -> EvaluatedRun:
        """As the section of an evaluation sees it."""
        own = self.result.of(evaluation)
        return EvaluatedRun(
            self.label, self.number, self.path, own if own.tasks else None, self.is_trained, self.data_kind
        )


def read_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """Read all; labels are the names of folders or files, with the parent's where two have the same."""
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
    return [_read(source, label, k) for k, (source, label) in enumerate(zip(found, labels, strict=True))]


def _read(source: Source, label: str, number: int) -> RunRecord:
    path = source.path
    metrics = path / "metrics.jsonl"
    if not metrics.is_file() and not source.files:
        raise ValueError(
            f"{path}: has no metrics.jsonl and no eval/*.json: name a run folder made by `latentlm train`, a folder "
            "with results in eval/, or a result file that `latentlm eval ... out=FILE` has written"
        )
    curves, words = _curves(metrics) if metrics.is_file() else ({}, {})
    problems: list[str] = []
    return RunRecord(
        path=path,
        label=label,
        number=number,
        curves=curves,
        words=words,
        recipe=_mapping(path / "recipe.yaml", problems),
        facts=_mapping(path / "run.json", problems),
        depth=_profile(path / "depth.json", problems),
        result=merge({str(file): result for file, result in source.files.items()}),
        files=list(source.files),
        problems=problems,
        is_trained=metrics.is_file(),
    )


def _mapping(path: Path, problems: list[str]) -> dict[str, Any] | None:
    """What a file holds; None, and a problem, where it was cut short or is not what it should be."""
    if not path.is_file():
        return None
    try:
        data = (
            read_json(path) if path.suffix == ".json" else read_yaml(path.read_text(encoding="utf-8"), path.name) or {}
        )
    except ValueError:
        data = None
    if isinstance(data, dict):
        return data
    problems.append(f"{path.name} cannot be read (cut short?), so it is left out")
    return None


def _profile(path: Path, problems: list[str]) -> dict[str, Any] | None:
    found = _mapping(path, problems)
    if found is None:
        return None
    lists = [found.get(key) for key in ("depth", "rank")]
    whole = all(isinstance(each, list) and each for each in lists) and isinstance(found.get("dim"), int)
    if whole and len(found["depth"]) == len(found["rank"]):
        return found
    problems.append(f"{path.name} has no rank for each depth, so it is left out")
    return None


def _curves(path: Path) -> tuple[dict[str, Curve], dict[str, list[tuple[int, str]]]]:
    """Metric -> values over steps. A resumed run logs a step twice: the later line counts."""
    numbers: dict[str, dict[int, float]] = {}
    words: dict[str, dict[int, str]] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else {}
            step = int(row["step"]) if row else 0
        except (ValueError, KeyError, TypeError):
            if number == len(lines):  # a run that was killed leaves half a line
                continue
            raise ValueError(f"{path}: line {number} is not JSON with a step: repair or remove it") from None
        for name, value in row.items():
            if name.startswith("monitor/") and isinstance(value, list):  # the failures found; none is good news
                value = ", ".join(map(str, value)) or "ok"
            if name == "step" or isinstance(value, list | dict | None):
                continue
            if isinstance(value, str | bool):
                words.setdefault(name, {})[step] = str(value)
            else:
                numbers.setdefault(name, {})[step] = float(value)
    return {n: sorted(v.items()) for n, v in numbers.items()}, {n: sorted(v.items()) for n, v in words.items()}


def terms(runs: Sequence[RunRecord]) -> list[str]:
    """Names of the terms of all runs' objectives, the next-token term first."""
    found = {name.removesuffix("/value") for run in runs for name in run.curves if name.endswith("/value")}
    return sorted((name for name in found if not name.startswith("monitor/")), key=lambda name: (name != "data", name))


def finite(curve: Curve) -> Curve:
    """Without NaN and infinities."""
    return [(step, value) for step, value in curve if math.isfinite(value)]
