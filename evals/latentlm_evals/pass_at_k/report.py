"""What the report shows of this evaluation: pass@k of every run."""

from collections.abc import Sequence

from latentlm.report.contract import Cell, EvaluatedRun, Note, Part, Section, Table, percent_cell
from latentlm_evals.pass_at_k.terminal_table import TASK, score_names


def report_sections(runs: Sequence[EvaluatedRun]) -> list[Section]:
    """One table."""
    scored = [(run, run.result.tasks[TASK]) for run in runs if run.result is not None and TASK in run.result.tasks]
    if not scored:
        return []
    names = score_names(task for _, task in scored)
    rows = []
    for run, task in scored:
        cells = [percent_cell(task.scores.get(name)) for name in names]
        rows.append([run.dot, *cells, Cell(str(task.n_samples.get("original", "-")))])
    note = "Share of problems that one of k sampled answers solves; 95 % intervals draw whole problems."
    parts: list[Part] = [Table(["run", *(f"{name}, %" for name in names), "problems"], rows), Note(note)]
    return [Section("Sampled answers", parts, shown=frozenset({TASK}))]
