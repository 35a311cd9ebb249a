"""Sections of the page about the training itself, and about scores that no evaluation shows in its own section."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from latentlm.report.contract import (
    Cell,
    Heading,
    Hint,
    Note,
    Part,
    Picture,
    Section,
    Table,
    Text,
    between,
    number,
    percent,
)
from latentlm.report.doctor import examine, fix, meaning
from latentlm.report.figures.palette import png
from latentlm.report.figures.training import losses, rank_over_depth
from latentlm.report.run_record import RunRecord, terms
from latentlm.result import Estimate, TaskKey

GOOD = ("ok", "false")  # monitor words that need no eye
MANY = 40  # scores; more are folded


def overview(runs: Sequence[RunRecord], headlines: Iterable[Mapping[str, Sequence[Cell | str]]]) -> Section:
    """One row per run: how long it trained, the losses, and what every evaluation has to say at the top."""
    columns: dict[str, Sequence[Cell | str]] = {}
    if any(run.is_trained for run in runs):
        steps = [max((curve[-1][0] for curve in run.curves.values()), default=0) for run in runs]
        columns["steps"] = [str(step) if run.is_trained else "-" for run, step in zip(runs, steps, strict=True)]
        columns["last loss (sum)"] = [number(run.last("loss")) for run in runs]
        if any("eval_loss" in run.curves for run in runs):
            columns["last held-out loss"] = [number(run.last("eval_loss")) for run in runs]
        if any("eval_above_entropy" in run.curves for run in runs):
            columns["above the entropy"] = [number(run.last("eval_above_entropy")) for run in runs]
    for headline in headlines:
        columns |= headline
    rows = [[run.dot, *(column[k] for column in columns.values())] for k, run in enumerate(runs)]
    return Section("Overview", [Table(["run", *columns], rows)] if columns else [])


def warnings(runs: Sequence[RunRecord]) -> Section:
    """What every run's results say about themselves, whichever evaluation it was, and what cannot be read."""
    said = [(run, line) for run in runs for line in (*run.problems, *run.result.warnings)]
    return Section("Warnings", [Hint(f"{run.label}: {line}", run=run.number) for run, line in said])


def health(runs: Sequence[RunRecord]) -> Section:
    """What `latentlm doctor` finds, in the same words."""
    trained = [run for run in runs if run.is_trained and "loss" in run.curves]
    found: dict[tuple[int, str, int], list[str]] = {}
    for run in trained:
        for finding in examine(run):
            found.setdefault((run.number, finding.verdict, finding.step), []).append(finding.place)
    rows = [
        [
            runs[number].dot,
            Cell(", ".join(places)),
            Cell(f"{verdict} at step {step}", style="bad"),
            Cell(meaning(verdict)),
            Cell(fix(verdict)),
        ]
        for (number, verdict, step), places in found.items()
    ]
    parts: list[Part] = [Table(["run", "where", "finding", "what it means", "try"], rows, 5)] if rows else []
    healthy = [run.label for run in trained if run.number not in {number for number, _, _ in found}]
    if healthy:
        parts.append(Note(f"healthy: {', '.join(healthy)}"))
    return Section("Health", parts)


def recipes(runs: Sequence[RunRecord]) -> Section:
    """Objective of every run, and the keys in which recipes differ."""
    parts = _missing(runs, "recipe.yaml", [run.recipe is None for run in runs])
    known = [(run, run.recipe) for run in runs if run.recipe is not None]
    for run, recipe in known:
        block = recipe.get("objective", recipe)
        parts += [
            Heading(run.label),
            Text(yaml.safe_dump(block, sort_keys=False)),
            Text(yaml.safe_dump(recipe, sort_keys=False), folded="whole recipe"),
        ]
    flat = [_flatten(recipe) for _, recipe in known]
    if len(flat) > 1:
        keys = sorted({key for own in flat for key in own if any(other.get(key) != own[key] for other in flat)})
        head = ["key", *(run.dot for run, _ in known)]
        rows = [[Cell(key, style="code"), *(_code(own, key) for own in flat)] for key in keys]
        parts.append(Heading("Where the recipes differ"))
        parts.append(Table(head, rows, len(head)) if rows else Note("Nowhere: the recipes are equal."))
    return Section("Recipes", parts)


def loss_curves(runs: Sequence[RunRecord]) -> Section:
    """Curves of every term, and their last values."""
    if not any(run.is_trained for run in runs):
        return Section("Losses", [])
    figure = losses(runs)
    if figure is None:
        return Section("Losses", [Hint("metrics.jsonl holds no losses.")])
    parts: list[Part] = [Picture("losses", "Loss curves of every term", png(figure))]
    rows = [
        [Cell(term), run.dot, number(run.last(f"{term}/value")), number(run.last(f"{term}/weighted"))]
        for term in terms(runs)
        for run in runs
        if f"{term}/value" in run.curves
    ]
    if rows:
        parts.append(Table(["term", "run", "last value", "as it enters the sum"], rows, 2))
    return Section("Losses", parts)


def depth(runs: Sequence[RunRecord]) -> Section:
    """Rank of the hidden states over depth."""
    parts = _missing(runs, "depth.json", [run.depth is None for run in runs])
    figure = rank_over_depth(runs)
    if figure is not None:
        parts.append(Picture("depth", "Effective rank of hidden states over depth", png(figure)))
    profiles = [(run, run.depth) for run in runs if run.depth is not None]
    if profiles:
        places = sorted({place for _, profile in profiles for place in profile["depth"]})
        rows = []
        for run, profile in profiles:
            ranks = dict(zip(profile["depth"], profile["rank"], strict=True))
            rows.append([run.dot, str(profile["dim"]), *(number(ranks.get(place)) for place in places)])
        parts.append(Table(["run", "width", *(f"depth {place}" for place in places)], rows))
    return Section("Rank over depth", parts)


def monitors(runs: Sequence[RunRecord]) -> Section:
    """Latest statistics of every monitored term; a verdict keeps the first failure it ever named."""
    found = {key: None for run in runs for key in (*run.words, *run.curves) if key.startswith("monitor/")}
    if not any(run.is_trained for run in runs):
        return Section("Monitors", [])
    if not found:
        return Section("Monitors", [Hint("No monitor was on: set objective.monitor_every to a number of steps.")])
    parts = [key.removeprefix("monitor/").rpartition("/")[::2] for key in found]
    names, kinds = sorted({name for name, _ in parts}), list(dict.fromkeys(kind for _, kind in parts))
    rows = []
    for name in names:
        for run in runs:
            cells = [_latest(run, f"monitor/{name}/{kind}") for kind in kinds]
            if any(cell.text != "-" for cell in cells):
                rows.append([Cell(name), run.dot, *cells])
    head = ["term", "run", *(kind.replace("_", " ") for kind in kinds)]
    return Section("Monitors", [Table(head, rows, 2)])


def found_targets(runs: Sequence[RunRecord]) -> Section:
    """How often the guess of a level finds its own target among others: what it has learned, beside chance."""
    rows = []
    for name in terms(runs):
        for run in runs:
            seen = [value for _, value in run.curves.get(f"monitor/{name}/hit_rate", [])]
            if seen:
                values = (seen[0], seen[-1], run.last(f"monitor/{name}/hit_rate_shuffled"))
                rows.append([Cell(name), run.dot, *map(percent, values)])
    if not rows:
        return Section("Own target found", [])
    head = ["level", "run", "first, %", "last, %", "with the targets of others, %"]
    note = Note(
        "A guess has found its target where it is nearer to it than to 64 other targets of the batch, or all where it "
        "has fewer. The last column is what chance gives."
    )
    return Section("Own target found", [Table(head, rows, 2), note])


def origin(runs: Sequence[RunRecord]) -> Section:
    """Command, commit, date and versions of every run."""
    parts = _missing(runs, "run.json", [run.facts is None for run in runs])
    flat = [(run, _flatten(run.facts)) for run in runs if run.facts is not None]
    keys = list(dict.fromkeys(key for _, facts in flat for key in facts))
    if keys:
        head = ["", *(run.dot for run, _ in flat)]
        rows = [[Cell(key), *(_code(facts, key) for _, facts in flat)] for key in keys]
        parts.append(Table(head, rows, len(head)))
    return Section("Where the runs come from", parts)


def other_scores(runs: Sequence[RunRecord], shown: frozenset[TaskKey]) -> Section:
    """Every score that no section above has shown, the runs side by side with intervals where there are any."""
    keys = {
        (task, name): None
        for run in runs
        for task, own in run.result.tasks.items()
        for name in own.scores
        if task not in shown
    }
    rows = [[Cell(str(task)), Cell(name), *(_score(run, task, name) for run in runs)] for task, name in keys]
    if not rows:
        return Section("Other scores", [])
    folded = f"{len(rows)} scores" if len(rows) > MANY else ""
    note = Note("Intervals are 95 %. A dash: the score was not measured or does not exist.")
    return Section("Other scores", [Table(["task", "score", *(run.dot for run in runs)], rows, 2, folded), note])


def _score(run: RunRecord, task: TaskKey, name: str) -> Cell:
    score = run.result.tasks[task].scores.get(name) if task in run.result.tasks else None
    if score is None or not score.exists:
        return Cell("-")
    if score.interval is not None:
        return Cell(number(score.value), between(score, ".4g"))
    return Cell(number(score.value), _error(score))


def _error(score: Estimate) -> str:
    has_error = score.stderr is not None and math.isfinite(score.stderr)
    return f"± {number(1.96 * score.stderr)}" if has_error and score.stderr is not None else ""


def _latest(run: RunRecord, key: str) -> Cell:
    if key in run.words:
        said = run.words[key]
        word = said[-1][1]
        bad = [(step, text) for step, text in said if text.lower() not in GOOD]
        first = f" ({bad[0][1]} at step {bad[0][0]})" if bad else ""
        return Cell(word, tail=first, style="good" if word.lower() in GOOD else "bad")
    value = run.last(key)
    return Cell(number(value)) if value is None or math.isfinite(value) else Cell(str(value), style="bad")


def _missing(runs: Sequence[RunRecord], file: str, lacks: Sequence[bool]) -> list[Part]:
    return [
        Hint(f"{run.label} has no {file}.", run.command(file))
        for run, is_missing in zip(runs, lacks, strict=True)
        if run.is_trained and is_missing
    ]


def _flatten(tree: Any, path: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping) and tree:
        return {
            k: v for key, sub in tree.items() for k, v in _flatten(sub, f"{path}.{key}" if path else str(key)).items()
        }
    return {path: tree}


def _code(values: Mapping[str, Any], key: str) -> Cell:
    if key not in values:
        return Cell("-")
    value = values[key]
    return Cell(" ".join(map(str, value)) if isinstance(value, list) else str(value), style="code")
