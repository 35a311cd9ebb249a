"""One table a section: a row for every score, a column for every run and depth, the nulls in brackets."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.table import Table

from latentlm.result import Estimate, Result, Task, TaskKey

CAPTION = "score \\[95 %] (labels or partners shuffled, ± sd of that null | random init)"
NULLS = ("_shuffled", "_random", "_null_sd")


class Place(NamedTuple):
    """What a task of this evaluation is about: a section of it, a concept, and a depth if it has one."""

    section: str
    what: str
    depth: str

    @classmethod
    def of(cls, key: TaskKey) -> "Place":
        """The place that a task names."""
        section, *rest = key.parts
        what, _, depth = "/".join(rest).partition("@")
        return cls(section, what, depth)


def table(results_by_run: dict[str, Result]) -> list[Table]:
    """``score [95 %] (labels shuffled | fresh weights)``; a dash where there is none: see the warnings below."""
    if not results_by_run:
        raise ValueError("results: none to compare: score a run first")
    runs = {run: {Place.of(key): task for key, task in result.tasks.items()} for run, result in results_by_run.items()}
    places = list(dict.fromkeys(place for tasks in runs.values() for place in tasks))
    sections = dict.fromkeys(place.section for place in places)
    views = [_section(section, [place for place in places if place.section == section], runs) for section in sections]
    notes = [(run, note) for run, result in results_by_run.items() for note in result.warnings]
    if notes:
        warned = Table(title="Warnings")
        warned.add_column("run", overflow="fold")
        warned.add_column("warning", overflow="fold")
        for run, note in notes:
            warned.add_row(_short(run), note)
        views.append(warned)
    return views


def _section(section: str, places: Sequence[Place], runs: Mapping[str, Mapping[Place, Task]]) -> Table:
    depths = list(dict.fromkeys(place.depth for place in places))
    view = Table(title=f"Coherence: {section}", caption=CAPTION)
    view.add_column("of", overflow="fold")
    view.add_column("score", overflow="fold")
    for run in runs:
        for depth in depths:
            view.add_column(f"{_short(run)}\n{'depth ' + depth if depth else ''}", justify="right")
    for what in dict.fromkeys(place.what for place in places):
        row = [tasks.get(Place(section, what, depth), Task({})) for tasks in runs.values() for depth in depths]
        for name in dict.fromkeys(name for task in row for name in task.scores if not name.endswith(NULLS)):
            view.add_row(what, name, *(_cell(task, name) for task in row))
        view.add_section()
    return view


def _cell(task: Task, name: str) -> str:
    score = task.scores.get(name)
    if score is None:
        return "-"
    shuffled, spread, fresh = (task.scores.get(f"{name}{null}") for null in ("_shuffled", "_null_sd", "_random"))
    null = _number(shuffled) if spread is None else f"±{_number(spread)}"
    known = f" ({null} | {_number(fresh)})" if null != "-" or (fresh is not None and fresh.exists) else ""
    between = "" if score.interval is None else " \\[{}, {}]".format(*map(_digits, score.interval))
    return f"{_number(score)}{between}{known}"


def _number(score: Estimate | None) -> str:
    return "-" if score is None or not score.exists else _digits(score.value)


def _digits(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    digits = f"{round(value, 2) + 0.0:.2f}"  # no -.00
    return digits.replace("0.", ".", 1) if digits.lstrip("-").startswith("0.") else digits


def _short(run: str) -> str:
    return "/".join(run.rstrip("/").split("/")[-2:])
