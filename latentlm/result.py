"""What an evaluation measured, as one typed object, and its file in the JSON shape of lm-eval.

    {"results": {"reversal/a_to_b/same/name": {"alias": ..., "exact,none": .9, "exact_low,none": .8, ...}},
     "versions": {task: 2}, "n-samples": {task: {...}}, "higher_is_better": {task: {"exact": true}},
     "config": {..., "software": {...}, "date": ...}, "warnings": [...]}

Files of lm-eval itself are read as well.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from latentlm.whole_files import read_json, write_json

BOUNDS = ("stderr", "low", "high")
KNOWN = (
    "results",
    "versions",
    "n-samples",
    "higher_is_better",
    "config",
    "configs",
    "warnings",
)  # not evaluation's own


@dataclass(frozen=True)
class Estimate:
    """One score. A value of NaN is a score that was requested and does not exist; a warning of the result says why.

    Attributes:
        value: the score.
        stderr: standard error, where there is one.
        low, high: 95 % interval, where there is one; a bound that only rounding has put on the wrong side of the value
            is the value.
        higher_is_better: None where neither is.
    """

    value: float
    stderr: float | None = None
    low: float | None = None
    high: float | None = None
    higher_is_better: bool | None = None

    def __post_init__(self):
        # resamples that are all alike are summed in another order than the value
        for name, bound in (("low", self.low), ("high", self.high)):
            if bound is not None and math.isclose(bound, self.value, rel_tol=1e-12, abs_tol=1e-15):
                object.__setattr__(self, name, self.value)

    @property
    def exists(self) -> bool:
        """Whether there is a value."""
        return math.isfinite(self.value)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Low and high, where both exist."""
        if self.low is None or self.high is None or not math.isfinite(self.low + self.high):
            return None
        return self.low, self.high

    def times(self, factor: float) -> "Estimate":
        """In another unit, such as per cent."""
        scaled = {name: None if (x := getattr(self, name)) is None else factor * x for name in BOUNDS}
        return replace(self, value=factor * self.value, **scaled)


@dataclass(frozen=True)
class TaskKey:
    """Name of a task: the evaluation, and what it calls the task, joined by slashes in files."""

    evaluation: str
    parts: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "TaskKey":
        """Of the name in a file."""
        evaluation, *parts = text.split("/")
        return cls(evaluation, tuple(parts))

    def __str__(self) -> str:
        return "/".join((self.evaluation, *self.parts))


@dataclass(frozen=True)
class Task:
    """The scores of one task.

    Attributes:
        scores: by name.
        alias: name for people.
        n_samples: what the scores are means over, such as ``original`` and ``effective`` of lm-eval.
        version: of the scores: another one gives the same model other numbers.
        config: with which it was scored, where several results were put together.
    """

    scores: dict[str, Estimate]
    alias: str = ""
    n_samples: dict[str, Any] = field(default_factory=dict)
    version: int | float | str | None = None
    config: dict[str, Any] | None = None

    def value(self, name: str) -> float:
        """Value of a score; NaN where there is none."""
        return self.scores[name].value if name in self.scores else math.nan

    def has(self, *names: str) -> bool:
        """Whether all these scores exist."""
        return all(math.isfinite(self.value(name)) for name in names)


@dataclass(frozen=True)
class Result:
    """Everything that one evaluation, or several of the same model, measured.

    Attributes:
        tasks: scores by task.
        config: of the evaluation; ``model_path`` names the model or run folder.
        date: when it was measured.
        software: versions of packages.
        warnings: what has no meaning, or less than it seems; each starts with a name.
        extra: what only one evaluation has, such as ``transfer`` of coherence; plain JSON.
    """

    tasks: dict[TaskKey, Task]
    config: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    software: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def measured(
        cls, tasks: dict[TaskKey, Task], config: dict[str, Any], warnings: list[str], **extra: Any
    ) -> "Result":
        """One of now and of the software that is installed."""
        packages = ("latentlm", "torch", "transformers")
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(tasks, config, date, {name: version(name) for name in packages}, warnings, extra)

    def of(self, evaluation: str) -> "Result":
        """The tasks of one evaluation."""
        return replace(self, tasks={key: task for key, task in self.tasks.items() if key.evaluation == evaluation})

    @property
    def evaluations(self) -> set[str]:
        """Whose tasks these are."""
        return {key.evaluation for key in self.tasks}

    @property
    def model(self) -> str | None:
        """The model or run folder that it names; None where the name says nothing outside of the folder it was in."""
        name = self.config.get("model_path")
        if not isinstance(name, str):
            return None
        path = Path(name)
        path = path.parent if path.name == "model" else path  # the weights of a run folder are the run's
        return None if path.name in ("", "..") else str(path)

    def to_lm_eval(self) -> dict[str, Any]:
        """Plain data in lm-eval's shape."""
        names = {str(key): task for key, task in self.tasks.items()}
        stamp = {"software": self.software} if self.software else {}
        stamp |= {"date": self.date} if self.date else {}
        better = {
            name: {
                score: estimate.higher_is_better
                for score, estimate in task.scores.items()
                if estimate.higher_is_better is not None
            }
            for name, task in names.items()
        }
        whole = {
            "results": {name: _row(task) for name, task in names.items()},
            "config": self.config | stamp,
            "versions": {name: task.version for name, task in names.items() if task.version is not None},
            "n-samples": {name: task.n_samples for name, task in names.items() if task.n_samples},
            "higher_is_better": {name: scores for name, scores in better.items() if scores},
            "warnings": self.warnings,
        }
        if configs := {name: task.config for name, task in names.items() if task.config is not None}:
            whole = {("configs" if key == "config" else key): value for key, value in whole.items()}
            whole["configs"] = configs
        return whole | self.extra

    @classmethod
    def from_lm_eval(cls, data: Any, name: str) -> "Result":
        """Read `to_lm_eval`, or a result of lm-eval itself; ValueError that begins with `name` for anything else."""
        rows = data.get("results") if isinstance(data, Mapping) else None
        if not isinstance(rows, Mapping) or not all(isinstance(row, Mapping) for row in rows.values()):
            raise ValueError(f'{name}: is not a result, it has no "results" of tasks')
        tables = {key: _mapping(data, key) for key in ("versions", "n-samples", "higher_is_better", "configs")}
        tasks = {}
        for task, row in rows.items():
            config = tables["configs"].get(task)
            tasks[TaskKey.parse(str(task))] = Task(
                scores=_scores(row, _mapping(tables["higher_is_better"], task)),
                alias=str(row.get("alias", "")),
                n_samples=dict(_mapping(tables["n-samples"], task)),
                version=tables["versions"].get(task),
                config=dict(config) if isinstance(config, Mapping) and "config" not in data else None,
            )
        config = dict(_mapping(data, "config"))
        software, date = config.pop("software", {}), config.pop("date", data.get("date", ""))
        said = data.get("warnings")
        return cls(
            tasks,
            config,
            str(date or ""),
            {str(k): str(v) for k, v in software.items()} if isinstance(software, Mapping) else {},
            list(map(str, said)) if isinstance(said, list) else [],
            {key: value for key, value in data.items() if key not in KNOWN},
        )

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(path, self.to_lm_eval())

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Read a file; ValueError in one line where it is not one."""
        return cls.from_lm_eval(read_json(path), str(path))


def merge(results: Mapping[str, Result]) -> Result:
    """Several results about one model as one, each task with the configuration that it was scored with."""
    tasks: dict[TaskKey, Task] = {}
    extra: dict[str, Any] = {}
    warnings: dict[str, None] = {}
    for result in results.values():
        stamp = {"software": result.software} if result.software else {}
        stamp |= {"date": result.date} if result.date else {}
        for key, task in result.tasks.items():
            tasks[key] = task if task.config is not None else replace(task, config=result.config | stamp)
        for name, value in result.extra.items():
            both = isinstance(value, dict) and isinstance(extra.get(name), dict)
            extra[name] = extra[name] | value if both else value
        warnings |= dict.fromkeys(result.warnings)
    return Result(tasks, warnings=list(warnings), extra=extra)


def check_replaceable(option: str, file: str | None) -> None:
    """ValueError if there is a file that is not a result: an evaluation replaces nobody else's file."""
    if file is None or not Path(file).is_file():
        return
    try:
        Result.read(Path(file))
    except (ValueError, OSError):
        raise ValueError(f"{option}: {file} exists and is not a result; name another file") from None


def check_samples_replaceable(option: str, file: str | None) -> None:
    """The same for the questions of an evaluation: JSON lines that begin with a task."""
    if file is None or not Path(file).is_file():
        return
    with Path(file).open(encoding="utf-8", errors="replace") as lines:
        first = next(lines, "")
    try:
        is_ours = not first or "task" in json.loads(first)
    except (ValueError, TypeError):
        is_ours = False
    if not is_ours:
        raise ValueError(f"{option}: {file} exists and does not hold questions of an evaluation; name another file")


def _row(task: Task) -> dict[str, Any]:
    row: dict[str, Any] = {"alias": task.alias} if task.alias else {}
    for name, estimate in task.scores.items():
        base, comma, how = name.partition(",")
        how = how if comma else "none"
        row[f"{base},{how}"] = _plain(estimate.value)
        for bound in BOUNDS:
            if (value := getattr(estimate, bound)) is not None:
                row[f"{base}_{bound},{how}"] = _plain(value)
    return row


def _plain(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return float(value) if math.isfinite(value) else None


def estimates(numbers: Mapping[str, float], better: Mapping[str, bool]) -> dict[str, Estimate]:
    """Scores from a flat table in which ``x_stderr``, ``x_low`` and ``x_high`` belong to ``x``.

    Args:
        numbers: values and bounds by name.
        better: of which scores more is better (true) or worse (false).
    """
    found = {}
    for name, value in numbers.items():
        stem, _, ending = name.rpartition("_")
        if not (ending in BOUNDS and stem in numbers):
            bounds = (numbers.get(f"{name}_{bound}") for bound in BOUNDS)
            found[name] = Estimate(value, *bounds, higher_is_better=better.get(name))
    return found


def _scores(row: Mapping[str, Any], better: Mapping[str, Any]) -> dict[str, Estimate]:
    """``exact,none`` is the score ``exact``; a filter other than none stays in its name."""
    filters: dict[str, dict[str, float]] = {}
    for key, value in row.items():
        base, comma, how = str(key).partition(",")
        if comma and (value is None or (isinstance(value, int | float) and not isinstance(value, bool))):
            filters.setdefault(how, {})[base] = math.nan if value is None else float(value)
    known = {str(name): value for name, value in better.items() if isinstance(value, bool)}
    return {
        name if how == "none" else f"{name},{how}": score
        for how, numbers in filters.items()
        for name, score in estimates(numbers, known).items()
    }


def _mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}
