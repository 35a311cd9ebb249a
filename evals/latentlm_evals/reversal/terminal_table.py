"""Several runs side by side: what they write in either direction, what they rank, and what they can read off a prompt.

A pipe is 100 columns wide: only the names of subsets and runs may be folded.
"""

from collections.abc import Mapping, Sequence

from rich.table import Table

from latentlm.result import Estimate, Result, Task
from latentlm_evals.reversal.groups import ERRORS, LEARNED, Group, groups_of

SAME, REVERSE = "same", "reverse"
WRITTEN = {
    SAME: "same",
    REVERSE: "reverse",
    "both": "both ways",
    "composition": "two steps",
    "shortcut": "echo",
    "non_reciprocal": "wrong",
}
STATED = {f"{split}_in_context": WRITTEN[split] for split in (SAME, REVERSE)}
RANKED = {**WRITTEN, **{split: f"{name}, in context" for split, name in STATED.items()}}

Runs = Mapping[str, Mapping[Group, Task]]


def table(results_by_run: dict[str, Result]) -> list[Table]:
    """Exact match of every subset and run, the same with the fact in the prompt, and the ranking scores."""
    if not results_by_run:
        raise ValueError("results: none to compare: score a run first")
    runs = {run: groups_of(result) for run, result in results_by_run.items()}
    tasks = {group: task for groups in runs.values() for group, task in groups.items()}
    splits, views = {group.split for group in tasks}, []
    if splits & WRITTEN.keys():
        views.append(_written(runs, "Reversal: exact match, %", WRITTEN, _written_notes(tasks)))
    if splits & STATED.keys():
        note = "The statement of the fact is before the question: what a model does that need not remember it."
        views.append(_written(runs, "Reversal in context: exact match, %", STATED, [note]))
    if any(task.has("mrr") for task in tasks.values()):
        views.append(_ranked(runs))
    warnings = [f"warning, {run}: {line}" for run, result in results_by_run.items() for line in result.warnings]
    if warnings and views:
        views[-1].caption = "\n".join([*([str(views[-1].caption)] if views[-1].caption else []), *warnings])
    return views


def _written(runs: Runs, title: str, splits: Mapping[str, str], notes: list[str]) -> Table:
    """One row per subset and run, one column per split that anything was asked in."""
    groups = {group for tasks in runs.values() for group in tasks}
    found = {group.split for group in groups}
    shown = [split for split in splits if split in found or split in (SAME, REVERSE)]
    view = _empty(title, "subset\n  run", [splits[split] for split in shown], notes)
    for subset in sorted({group.subset for group in groups if group.split in splits}):
        for run, tasks in runs.items():
            asked = {
                split: {group: task for group, task in tasks.items() if group[:2] == (subset, split)} for split in shown
            }
            learned = all(task.value("exact") >= LEARNED for task in asked.get(SAME, {}).values())
            cells = [_cell(asked[split]) for split in shown]
            if asked.get(REVERSE) and not learned:
                cells[shown.index(REVERSE)] += " *"
            view.add_row(f"{subset}\n  {run}", *cells)
        view.add_section()
    return view


def _written_notes(tasks: Mapping[Group, Task]) -> list[str]:
    lines = []
    if any(group.split == REVERSE for group in tasks):
        lines.append(f"* same direction below {LEARNED:.0%}: not learned, so the reverse score does not count.")
    if any(group.split in ERRORS for group in tasks):
        lines.append("echo: answers with the entity asked about; wrong: the wrong converse. For both, low is good.")
    if any(task.has("acc") for task in tasks.values()):
        lines.append("choice: share of multiple-choice questions whose right option is the likeliest.")
    return lines


def _ranked(runs: Runs) -> Table:
    """One row per subset, split, answer type and run."""
    note = (
        "Place of the answer among those of its pool. MRR: each answer's mean log P removed. MCQ: chance that it is "
        "likelier than three others of the pool; 25 is a guess. Δ log p: log P(answer) - mean of the others; p: whole "
        "entities swap answers. [95 % over facts]."
    )
    names = ["MRR\n(chance)", "MCQ, %", "Δ log p", "p"]
    view = _empty("Reversal: ranking", "subset\n  direction > asked\n    run", names, [note])
    splits = list(RANKED)
    groups = {group for tasks in runs.values() for group in tasks}
    for group in sorted(groups, key=lambda group: (group.subset, splits.index(group.split), group.answer_type)):
        for run, tasks in runs.items():
            task = tasks.get(group)
            if task is not None and task.has("mrr"):
                name = f"{group.subset}\n  {RANKED[group.split]} > {group.answer_type}\n    {run}"
                view.add_row(name, _mrr(task), _mcq(task), _delta(task), _p(task))
    return view


def _empty(title: str, first: str, names: Sequence[str], notes: Sequence[str]) -> Table:
    view = Table(title=title, caption="\n".join(notes) or None, caption_justify="left")
    view.add_column(first, overflow="fold")
    for name in names:
        view.add_column(name, justify="right", no_wrap=True)
    return view


def _cell(tasks: Mapping[Group, Task]) -> str:
    """One line per thing asked; what is asked is named only where a split asks for several things."""
    lines = [(group.answer_type, _exact(task)) for group, task in tasks.items()]
    return "\n".join(f"{answer_type}:\n{line}" if len(lines) > 1 else line for answer_type, line in lines) or "-"


def _exact(task: Task) -> str:
    shown = _percents(task.scores["exact"])
    return f"{shown}\nchoice {_percents(task.scores['acc'])}" if task.has("acc") else shown


def _percents(score: Estimate) -> str:
    percent = score.times(100.0)
    return f"{percent.value:.1f}" + _between(percent, ".0f")


def _between(score: Estimate, digits: str) -> str:
    return "" if score.interval is None else f"\n[{score.interval[0]:{digits}}, {score.interval[1]:{digits}}]"


def _mrr(task: Task) -> str:
    score = task.scores["mrr"]
    return f"{score.value:.3f} ({task.value('mrr_chance'):.3f})" + _between(score, ".3f")


def _mcq(task: Task) -> str:
    return _percents(task.scores["mcq"]) if task.has("mcq") else "-"


def _delta(task: Task) -> str:
    score = task.scores["delta_logp"]
    return f"{score.value:+.2f}" + _between(score, "+.2f")


def _p(task: Task) -> str:
    return f"{task.value('delta_logp_p'):.3f}" if task.has("delta_logp_p") else "-"
