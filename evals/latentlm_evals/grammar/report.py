"""What the report shows of this evaluation: the loss above the entropy and what is read off, of every run."""

from collections.abc import Sequence

from latentlm.report.contract import Cell, EvaluatedRun, Note, Part, Section, Table, percent_cell
from latentlm_evals.grammar.terminal_table import EXCESS, level_key, levels


def report_sections(runs: Sequence[EvaluatedRun]) -> list[Section]:
    """One table."""
    scored = [(run, run.result) for run in runs if run.result is not None and EXCESS in run.result.tasks]
    if not scored:
        return []
    known = levels([result for _, result in scored])
    rows = []
    for run, result in scored:
        tasks = [result.tasks.get(level_key(level, None)) for level in known]
        cells = [percent_cell(None if task is None else task.scores.get("acc")) for task in tasks]
        rows.append([run.dot, Cell(f"{result.tasks[EXCESS].value('nats'):.4f}"), *cells])
    note = (
        "Held-out loss in nats a token after the first, above the exact entropy of the grammar: 0 is a perfect model. "
        "Level k: accuracy of a ridge readout of the k-th hidden symbol from the state at its last token."
    )
    head = ["run", "loss above entropy", *(f"level {level}, %" for level in known)]
    parts: list[Part] = [Table(head, rows), Note(note)]
    shown = frozenset({EXCESS, *(level_key(level, None) for level in known)})
    return [Section("Distance from the grammar", parts, shown=shown)]
