"""What the report shows of this evaluation: scores over depth beside their floors, factors, and the pictures."""

from collections.abc import Sequence
from dataclasses import replace

from latentlm.report.contract import (
    Cell,
    EvaluatedRun,
    Heading,
    Note,
    Part,
    Picture,
    Section,
    Table,
    percent,
    percent_cell,
)
from latentlm.report.figures.curves import Curve, panels_over_depth
from latentlm.report.figures.maps import Map, stacked_maps
from latentlm.report.figures.palette import png
from latentlm.result import Estimate, Result, Task, TaskKey

FACTOR = "factor/"
ACCURACIES = {"knn": "kNN", "linear": "linear", "attentive": "attentive", "finetune": "fine-tuned"}
SHARES = {
    "level/detail": "detail factors",
    "level/semantic": "semantic factors",
    "level/nuisance": "nuisance",
    "level/noise": "noise",
    "pixels/linear": "pixels, linear",
}
OVER_DEPTH = {"knn": "kNN, accuracy", "linear": "Linear probe, accuracy"}
DRAWN = {
    "vision_reconstructions": "What a linear map makes of the states at each depth",
    "vision_neighbours": "Test images, and the training images whose states at the top are nearest",
}


def report_sections(runs: Sequence[EvaluatedRun]) -> list[Section]:
    """One section: curves, the map of factors, a table, and what `latentlm eval vision` has drawn."""
    scored = [(run, run.result) for run in runs if run.result is not None and run.result.tasks]
    if not scored:
        return []
    parts: list[Part] = []
    curves = {title: _curves(scored, key) for key, title in OVER_DEPTH.items()}
    if any(len(curve.scores) > 1 for own in curves.values() for curve in own):
        labels = [run.label for run in runs]
        figure = panels_over_depth({title: own for title, own in curves.items() if own}, labels, "accuracy, %")
        parts.append(Picture("vision-depth", "Accuracy over depth with 95 % bands", png(figure)))
    if maps := [each for run, result in scored if (each := _map(run, result)) is not None]:
        figure = stacked_maps(maps, "skill over chance, or R2", numbers=True)
        parts.append(Picture("vision", "Depth by factor: what a linear map reads off", png(figure)))
    parts += _table(scored)
    for run, _ in scored:
        parts += _drawn(run, many=len(scored) > 1)
    shown = frozenset(key for _, result in scored for key in result.tasks if _is_listed(result.tasks[key]))
    return [Section("Vision", parts, shown=shown)]


def place(key: TaskKey) -> tuple[str, int | None]:
    """Features and their depth: ``depth 3`` of the network, ``random 3`` of fresh weights, ``raw pixels``."""
    name = "/".join(key.parts)
    kind, _, depth = name.rpartition(" ")
    return (kind, int(depth)) if kind in ("depth", "random") and depth.isdigit() else (name, None)


def _curves(scored: Sequence[tuple[EvaluatedRun, Result]], key: str) -> list[Curve]:
    curves = []
    for run, result in scored:
        found = {place(name): task.scores[key] for name, task in result.tasks.items() if task.has(key)}
        scores = {depth: score for (kind, depth), score in found.items() if kind == "depth" and depth is not None}
        floor = {depth: s.value for (kind, depth), s in found.items() if kind == "random" and depth is not None}
        if scores:
            curves.append(Curve(run.number, scores, floor))
    return curves


def _map(run: EvaluatedRun, result: Result) -> Map | None:
    rows = {
        "/".join(key.parts): task
        for key, task in result.tasks.items()
        if any(name.startswith(FACTOR) for name in task.scores)
    }
    if not rows:
        return None
    names = list(dict.fromkeys(name for task in rows.values() for name in task.scores if name.startswith(FACTOR)))
    values = [[task.value(name) for name in names] for task in rows.values()]
    return Map(run.label, list(rows), [name.removeprefix(FACTOR) for name in names], values)


def _table(scored: Sequence[tuple[EvaluatedRun, Result]]) -> list[Part]:
    tasks = [task for _, result in scored for task in result.tasks.values()]
    rates, shares = ([key for key in keys if any(task.has(key) for task in tasks)] for keys in (ACCURACIES, SHARES))
    if not rates and not shares:
        return []
    rows = [
        [
            run.dot,
            Cell("/".join(key.parts)),
            *(percent_cell(_banded(task, name)) for name in rates),
            *(Cell(percent(task.value(name))) for name in shares),
        ]
        for run, result in scored
        for key, task in result.tasks.items()
    ]
    head = ["run", "features", *(f"{ACCURACIES[key]}, %" for key in rates), *(SHARES[key] for key in shares)]
    notes = [Note(_about(run, result)) for run, result in scored]
    if rates:
        notes.append(Note("kNN, linear, attentive, fine-tuned: accuracy with its 95 % interval over test images."))
    if shares:
        text = (
            "Factors: read off linearly, %: skill over chance for classes, R2 for magnitudes and pixels. Nuisance is "
            "brightness; noise cannot be predicted, so reading it means that pixels are kept."
        )
        notes.append(Note(text))
    return [Table(head, rows, 2), *notes, Note("random: fresh weights of the same shape, a floor beside each depth.")]


def _banded(task: Task, name: str) -> Estimate | None:
    score = task.scores.get(name)
    if score is None or score.stderr is None or score.interval:
        return score
    return replace(score, low=score.value - 1.96 * score.stderr, high=score.value + 1.96 * score.stderr)


def _about(run: EvaluatedRun, result: Result) -> str:
    counts = next(iter(result.tasks.values())).n_samples
    said = [f"{counts[name]} {name} images" for name in ("train", "test") if name in counts]
    said += [f"read at {result.config['at']}"] if "at" in result.config else []
    said += [result.date] if result.date else []
    return f"{run.label}: {', '.join(said)}." if said else ""


def _drawn(run: EvaluatedRun, many: bool) -> list[Part]:
    files = {run.path / "eval" / f"{name}.png": alt for name, alt in DRAWN.items()}
    pictures: list[Part] = []
    for file, alt in files.items():
        if file.is_file():
            title = f"{run.label}: {alt}" if many else alt
            pictures += [Heading(title), Picture("", title, file.read_bytes())]
    return pictures


def _is_listed(task: Task) -> bool:
    return not any(name not in ACCURACIES | SHARES for name in task.scores)
