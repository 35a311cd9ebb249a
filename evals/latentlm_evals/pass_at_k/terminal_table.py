"""Several runs in one table."""

from collections.abc import Iterable

from rich.table import Table

from latentlm.result import Estimate, Result, Task, TaskKey

TASK = TaskKey("pass_at_k")


def table(results_by_run: dict[str, Result]) -> list[Table]:
    """One row a run; pass@k in % with its 95 % interval over problems."""
    if not results_by_run:
        raise ValueError("results: none to compare: score a run first")
    rows = {run: result.tasks[TASK] for run, result in results_by_run.items()}
    view = Table(title="pass@k, %", caption=_caption(results_by_run), caption_justify="left")
    view.add_column("run", overflow="fold")
    names = score_names(rows.values())
    for name in names:
        view.add_column(name, justify="right")
    view.add_column("problems", justify="right")
    for run, task in rows.items():
        view.add_row(run, *(_cell(task.scores.get(name)) for name in names), str(task.n_samples["effective"]))
    return [view]


def score_names(tasks: Iterable[Task]) -> list[str]:
    """The pass@k of all tasks, by k."""
    names = {name for task in tasks for name in task.scores if name.startswith("pass@")}
    return sorted(names, key=lambda name: int(name.partition("@")[2]))


def _cell(score: Estimate | None) -> str:
    if score is None:
        return "-"
    percent = score.times(100.0)
    low, high = percent.interval or (percent.value, percent.value)
    return f"{percent.value:.1f} [{low:.0f}, {high:.0f}]"


def _caption(results_by_run: dict[str, Result]) -> str:
    lines = []
    for run, result in results_by_run.items():
        options = result.config["options"]
        lines.append(f"{run}: {options['samples']} answers a problem at temperature {options['temperature']:g}")
        lines += [f"warning, {run}: {line}" for line in result.warnings]
    return "\n".join(lines)
