"""Several runs side by side: what they write in either direction, what they rank, and what they can read off a prompt.

A pipe is 100 columns wide: only the names of subsets and runs may be folded.
"""

from collections.abc import Callable, Mapping

from rich.table import Table

LEARNED = 0.9  # below this same-direction score the fact was not learned, and its reverse says nothing
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


def table(results_by_run: dict[str, dict]) -> list[Table]:
    """Exact match of every subset and run, the same with the fact in the prompt, and the ranking scores."""
    if not results_by_run:
        raise ValueError("results: none to compare: score a run first")
    views = []
    if _has(results_by_run, lambda split, _: split in WRITTEN):
        views.append(_written(results_by_run, "Reversal: exact match, %", WRITTEN, _written_notes(results_by_run)))
    if _has(results_by_run, lambda split, _: split in STATED):
        note = "The statement of the fact stands before the question: what a model does that need not remember it."
        title = "Reversal in context: exact match, %"
        views.append(_written(results_by_run, title, STATED, [note]))
    if _has(results_by_run, lambda _, row: "mrr,none" in row):
        views.append(_ranked(results_by_run))
    warnings = [f"warning, {run}: {line}" for run, result in results_by_run.items() for line in result["warnings"]]
    if warnings and views:
        views[-1].caption = "\n".join([*([str(views[-1].caption)] if views[-1].caption else []), *warnings])
    return views


def _written(results_by_run: dict[str, dict], title: str, splits: Mapping[str, str], notes: list[str]) -> Table:
    """One row per subset and run, one column per split that anything was asked in."""
    found = {split for _, split, _ in map(_parts, _tasks(results_by_run))}
    shown = [split for split in splits if split in found or split in (SAME, REVERSE)]
    view = _empty(title, "subset\n  run", [splits[split] for split in shown], notes)
    for subset in sorted({_parts(task)[0] for task in _tasks(results_by_run) if _parts(task)[1] in splits}):
        for run, result in results_by_run.items():
            asked = {
                split: [task for task in result["results"] if _parts(task)[:2] == (subset, split)] for split in shown
            }
            learned = all(result["results"][task]["exact,none"] >= LEARNED for task in asked.get(SAME, []))
            cells = [_cell(result, asked[split]) for split in shown]
            if asked.get(REVERSE) and not learned:
                cells[shown.index(REVERSE)] += " *"
            view.add_row(f"{subset}\n  {run}", *cells)
        view.add_section()
    return view


def _written_notes(results_by_run: dict[str, dict]) -> list[str]:
    lines = []
    if _has(results_by_run, lambda split, _: split == REVERSE):
        lines.append(f"* same direction below {LEARNED:.0%}: not learned, so the reverse score does not count.")
    if _has(results_by_run, lambda split, _: split in ("shortcut", "non_reciprocal")):
        lines.append("echo: answers with the entity asked about; wrong: the wrong converse. For both, low is good.")
    if _has(results_by_run, lambda _, row: "acc,none" in row):
        lines.append("choice: share of multiple-choice questions whose right option is the likeliest.")
    return lines


def _ranked(results_by_run: dict[str, dict]) -> Table:
    """One row per subset, split, asked thing and run."""
    note = (
        "Place of the answer among those of its pool. MRR: each answer's mean log P removed. MCQ: chance that it is "
        "likelier than three others of the pool; 25 is a guess. Δ log p: log P(answer) - mean of the others; p: whole "
        "entities swap answers. [95 % over facts]."
    )
    names = ["MRR\n(chance)", "MCQ, %", "Δ log p", "p"]
    view = _empty("Reversal: ranking", "subset\n  direction > asked\n    run", names, [note])
    tasks = list(dict.fromkeys(_tasks(results_by_run)))
    place = {split: k for k, split in enumerate(RANKED)}
    for task in sorted(tasks, key=lambda task: (_parts(task)[0], place[_parts(task)[1]], _parts(task)[2])):
        subset, split, asks = _parts(task)
        rows = {run: result["results"].get(task, {}) for run, result in results_by_run.items()}
        for run, row in rows.items():
            if "mrr,none" in row:
                name = f"{subset}\n  {RANKED[split]} > {asks}\n    {run}"
                view.add_row(name, _mrr(row), _mcq(row), _delta(row), _p(row))
    return view


def _empty(title: str, first: str, names: list[str], notes: list[str]) -> Table:
    view = Table(title=title, caption="\n".join(notes) or None, caption_justify="left")
    view.add_column(first, overflow="fold")
    for name in names:
        view.add_column(name, justify="right", no_wrap=True)
    return view


def _tasks(results_by_run: dict[str, dict]) -> list[str]:
    return [task for result in results_by_run.values() for task in result["results"]]


def _has(results_by_run: dict[str, dict], is_so: Callable[[str, dict], bool]) -> bool:
    rows = [row for result in results_by_run.values() for row in result["results"].items()]
    return any(is_so(_parts(task)[1], row) for task, row in rows)


def _parts(task: str) -> tuple[str, str, str]:
    subset, split, asks = task.removeprefix("reversal/").rsplit("/", 2)
    return subset, split, asks


def _cell(result: dict, tasks: list[str]) -> str:
    """One line per thing asked; what is asked is named only where a split asks for several things."""
    lines = [_exact(result["results"][task]) for task in tasks]
    if len(tasks) > 1:
        lines = [f"{_parts(task)[2]}:\n{line}" for task, line in zip(tasks, lines, strict=True)]
    return "\n".join(lines) or "-"


def _exact(row: dict) -> str:
    shown = f"{100 * row['exact,none']:.1f}\n{_percents(row, 'exact')}"
    if "acc,none" in row:
        shown += f"\nchoice {100 * row['acc,none']:.1f}\n{_percents(row, 'acc')}"
    return shown


def _percents(row: dict, name: str) -> str:
    low, high = (100 * row[f"{name}_{end},none"] for end in ("low", "high"))
    return f"[{low:.0f}, {high:.0f}]"


def _mrr(row: dict) -> str:
    low, high = row["mrr_low,none"], row["mrr_high,none"]
    return f"{row['mrr,none']:.3f} ({row['mrr_chance,none']:.3f})\n[{low:.3f}, {high:.3f}]"


def _mcq(row: dict) -> str:
    return f"{100 * row['mcq,none']:.1f}\n{_percents(row, 'mcq')}" if "mcq,none" in row else "-"


def _delta(row: dict) -> str:
    shown = f"{row['delta_logp,none']:+.2f}"
    if "delta_logp_low,none" in row:
        shown += f"\n[{row['delta_logp_low,none']:+.2f}, {row['delta_logp_high,none']:+.2f}]"
    return shown


def _p(row: dict) -> str:
    return f"{row['delta_logp_p,none']:.3f}" if "delta_logp_p,none" in row else "-"
