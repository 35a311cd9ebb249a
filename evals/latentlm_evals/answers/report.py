"""What the report shows of this evaluation: the answers and the losses of every run."""

from collections.abc import Sequence

from latentlm.report.contract import Cell, EvaluatedRun, Note, Part, Section, Table, between, number, percent_cell
from latentlm.result import Estimate, Task, TaskKey
from latentlm_evals.answers.terminal_table import LOSSES, TASK, TEXT, split_names


def report_sections(runs: Sequence[EvaluatedRun]) -> list[Section]:
    """One section with a table of answers and one of texts; the scores of answers also in the overview."""
    tables: list[Part] = []
    for key, unit in ((TASK, "rows"), (TEXT, "documents")):
        scored = [(run, task) for run in runs if (task := _task(run, key)) is not None]
        if scored:
            tables.append(_table(scored, unit))
    if not tables:
        return []
    note = "Answers to test rows: share that is right; cut by the limit of tokens; loss of the right answers. "
    note += "95 % intervals draw whole rows or documents."
    shown = frozenset({TASK, TEXT})
    return [Section("Answers", [*tables, Note(note)], _headline(runs), shown)]


def _task(run: EvaluatedRun, key: TaskKey) -> Task | None:
    return None if run.result is None else run.result.tasks.get(key)


def _table(scored: Sequence[tuple[EvaluatedRun, Task]], unit: str) -> Table:
    names, losses = split_names(task for _, task in scored)
    rows = []
    for run, task in scored:
        cells = [percent_cell(task.scores.get(name)) for name in names]
        cells += [_loss_cell(task.scores.get(loss)) for loss in losses]
        rows.append([run.dot, *cells, Cell(str(task.n_samples.get("effective", "-")))])
    return Table(["run", *(f"{name}, %" for name in names), *(LOSSES[loss] for loss in losses), unit], rows)


def _headline(runs: Sequence[EvaluatedRun]) -> dict[str, list[Cell]]:
    """Exact match, and the loss of text."""
    columns: dict[str, list[Cell]] = {}
    tasks = {key: [_task(run, key) for run in runs] for key in (TASK, TEXT)}
    if any(tasks[TASK]):
        columns["answers exact, %"] = [percent_cell(task and task.scores.get("exact")) for task in tasks[TASK]]
    if any(task is not None and task.has("bits_per_byte") for task in tasks[TEXT]):
        columns["text, bits/byte"] = [_loss_cell(task and task.scores.get("bits_per_byte")) for task in tasks[TEXT]]
    return columns


def _loss_cell(score: Estimate | None) -> Cell:
    if score is None or not score.exists:
        return Cell("-")
    return Cell(number(score.value), between(score, ".3g"))
