"""Several runs in one table."""

from collections.abc import Iterable, Sequence

from rich.table import Table

from latentlm.result import Estimate, Result, Task, TaskKey

TASK, TEXT = TaskKey("answers"), TaskKey("answers", ("text",))
LOSSES = {"nats_per_token": "nats/token", "bits_per_token": "bits/token", "bits_per_byte": "bits/byte"}


def table(results_by_run: dict[str, Result]) -> list[Table]:
    """A row for each run: scores in % and losses, each with its 95 % interval over rows or documents."""
    if not results_by_run:
        raise ValueError("results: none to compare: score a run first")
    views = []
    for key, title, unit in ((TASK, "Answers, %", "rows"), (TEXT, "Loss of text", "documents")):
        tasks = {run: result.tasks[key] for run, result in results_by_run.items() if key in result.tasks}
        if tasks:
            views.append(_view(tasks, title, unit))
    notes = [f"warning, {run}: {line}" for run, result in results_by_run.items() for line in result.warnings]
    if notes and views:
        views[-1].caption, views[-1].caption_justify = "\n".join(notes), "left"
    return views


def _view(tasks: dict[str, Task], title: str, unit: str) -> Table:
    names, losses = split_names(tasks.values())
    view = Table(title=title)
    view.add_column("run", overflow="fold")
    for name in [*names, *(LOSSES[loss] for loss in losses), unit]:
        view.add_column(name, justify="right")
    for run, task in tasks.items():
        cells = [_cell(task.scores.get(name), 100.0, 1) for name in names]
        cells += [_cell(task.scores.get(loss), 1.0, 3) for loss in losses]
        view.add_row(run, *cells, str(task.n_samples.get("effective", "-")))
    return view


def split_names(tasks: Iterable[Task]) -> tuple[Sequence[str], Sequence[str]]:
    """Scores of answers, in the order of their tasks, and losses."""
    found = list(dict.fromkeys(name for task in tasks for name in task.scores))
    return [name for name in found if name not in LOSSES], [name for name in LOSSES if name in found]


def _cell(score: Estimate | None, factor: float, digits: int) -> str:
    if score is None or not score.exists:
        return "-"
    scaled = score.times(factor)
    if scaled.interval is None:
        return f"{scaled.value:.{digits}f}"
    low, high = scaled.interval
    return f"{scaled.value:.{digits}f} [{low:.{digits - 1}f}, {high:.{digits - 1}f}]"
