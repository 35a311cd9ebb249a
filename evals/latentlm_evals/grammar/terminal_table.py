"""Several runs in one table, and the names of this evaluation's tasks."""

from rich.table import Table

from latentlm.result import Estimate, Result, TaskKey

EXCESS = TaskKey("grammar", ("excess",))


def position_key(place: int) -> TaskKey:
    """Loss of the token at a place, counted from 1."""
    return TaskKey("grammar", ("position", str(place)))


def level_key(level: int, depth: int | None) -> TaskKey:
    """Readout of a level at a depth; None: at the depth that other sentences chose."""
    return TaskKey("grammar", ("level", str(level), "chosen" if depth is None else str(depth)))


def levels(results: list[Result]) -> list[int]:
    """Levels that some result has."""
    keys = {key for result in results for key in result.tasks}
    return sorted(int(key.parts[1]) for key in keys if key.parts[0] == "level" and key.parts[-1] == "chosen")


def table(results_by_run: dict[str, Result]) -> list[Table]:
    """One row a run: nats a token above the entropy, and the accuracy of each level's readout in %."""
    if not results_by_run:
        raise ValueError("results: none to compare: score a run first")
    lines = [f"warning, {run}: {line}" for run, result in results_by_run.items() for line in result.warnings]
    view = Table(title="Distance from the grammar", caption="\n".join(lines), caption_justify="left")
    view.add_column("run", overflow="fold")
    view.add_column("loss above entropy", justify="right")
    known = levels(list(results_by_run.values()))
    for level in known:
        view.add_column(f"level {level}, % (depth)", justify="right")
    for run, result in results_by_run.items():
        cells = []
        for level in known:
            task = result.tasks.get(level_key(level, None))
            cells.append("-" if task is None else f"{100 * task.value('acc'):.1f} ({task.value('depth'):.0f})")
        view.add_row(run, _nats(result.tasks[EXCESS].scores["nats"]), *cells)
    return [view]


def _nats(score: Estimate) -> str:
    low, high = score.interval or (score.value, score.value)
    return f"{score.value:.4f} [{low:.4f}, {high:.4f}]"
