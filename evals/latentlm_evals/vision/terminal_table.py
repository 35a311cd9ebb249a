"""Runs side by side, depth by depth, with the floors below each."""

from rich.table import Table

from latentlm.data.images.scenes import LEVELS
from latentlm.result import Result, Task

PROBES = {"knn": "kNN", "linear": "linear", "attentive": "attentive", "finetune": "fine-tune"}
SUMS = {f"level/{level}": level for level in LEVELS if level != "later"}
PIXELS = {"pixels/linear": "pixels, linear", "pixels/decoder": "pixels, decoder"}
FACTORS = {f"factor/{name}": name for names in LEVELS.values() for name in names}
UNSEEN = {"factor/body": "body, seen", "unseen/body": "unseen", "factor/top": "top, seen", "unseen/top": "unseen"}
CHANGED = {f"change/{name}": name for name in ("shift", "grow", "recolour", "add_marble")}
BROKEN = {f"fracture/{name}": f"fracture: {name}" for name in ("fur", "relation", "shuffled")}
COLUMNS = 8  # that a terminal of 100 characters holds
LATER = {f"later/{size}": f"chalk, {size} labels" for size in (100, 400, 1600)}


def table(results_by_run: dict[str, Result]) -> list[Table]:
    """What classes and pixels can be read, every factor, and what readouts are good for beyond the data they saw."""
    if not results_by_run:
        raise ValueError("results: none to compare: score a run first")
    factors = list(FACTORS.items())
    title = "Factors read off linearly: skill over chance for classes, R2 for magnitudes, %"
    unseen = "Combinations never seen (skill, %), and a change as one map (EQ gain, %; 0 = invariant)"
    broken = "Fracture of the body's readout over contexts (0 = one for all), and a later task (skill, %)"
    views = [
        _view(results_by_run, "Probes (accuracy, %), and pixels (R2, %)", PROBES | PIXELS),
        _view(results_by_run, "Means over the factors of a level (skill or R2, %)", SUMS),
        _view(results_by_run, title, dict(factors[:COLUMNS])),
        _view(results_by_run, title, dict(factors[COLUMNS:])),
        _view(results_by_run, unseen, UNSEEN | CHANGED),
        _view(results_by_run, broken, BROKEN | LATER),
    ]
    views = [view for view in views if view is not None]
    warnings = sorted({line for result in results_by_run.values() for line in result.warnings})
    if views and (widest := max(map(_widest, results_by_run.values()))):
        views[
            0
        ].caption = f"95 % intervals over test images: at most +- {100 * widest:.1f}; chance: the commonest class"
    if views and warnings:
        views[-1].caption = "\n".join([*([str(views[-1].caption)] if views[-1].caption else []), *warnings])
    return views


def _widest(result: Result) -> float:
    """Half of the widest interval of an accuracy."""
    errors = [task.scores[key].stderr for task in result.tasks.values() for key in PROBES if task.has(key)]
    return 1.96 * max((error for error in errors if error is not None), default=0.0)


def _view(results: dict[str, Result], title: str, columns: dict[str, str]) -> Table | None:
    tasks = [task for result in results.values() for task in result.tasks.values()]
    shown = [key for key in columns if any(key in task.scores for task in tasks)]
    if not shown:
        return None
    view = Table(title=title)
    if len(results) > 1:
        view.add_column("run", overflow="fold")
    view.add_column("features")
    for key in shown:
        view.add_column(columns[key], justify="right")
    for run, result in results.items():
        for task in (task for task in result.tasks.values() if any(task.has(key) for key in shown)):
            view.add_row(*([run] if len(results) > 1 else []), task.alias, *(_cell(task, key) for key in shown))
        view.add_section()
    return view


def _cell(task: Task, key: str) -> str:
    if not task.has(key):
        return "-"
    return f"{task.value(key):.2f}" if key in BROKEN else f"{100 * task.value(key):.1f}"
