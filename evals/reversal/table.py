"""Several runs in one table: the trained direction beside the reverse one."""

from rich.table import Table

LEARNED = 0.9  # below this same-direction score the fact was not learned, and its reverse says nothing
EXTRA = {
    "both": "both ways",
    "composition": "two steps",
    "shortcut": "echo",
    "non_reciprocal": "wrong",
}


def table(results_by_run: dict[str, dict]) -> Table:
    """One row per subset and run, the runs of a subset next to each other; exact match in % with its 95 % interval."""
    if not results_by_run:
        raise ValueError("results: none to compare: score a run first")
    splits = {split for result in results_by_run.values() for _, split, _ in map(_parts, result["results"])}
    extra = [split for split in EXTRA if split in splits]
    view = Table(
        title="Reversal: exact match, %",
        caption=_caption(results_by_run, extra),
        caption_justify="left",
    )
    view.add_column("subset\n  run", overflow="fold")
    for name in ("same", "reverse", "MRR\n(chance)", "Δ log p\n(p)", *(EXTRA[split] for split in extra)):
        view.add_column(name, justify="right")
    subsets = sorted({_parts(task)[0] for result in results_by_run.values() for task in result["results"]})
    for subset in subsets:
        for run, result in results_by_run.items():
            found = {
                split: [task for task in result["results"] if _parts(task)[:2] == (subset, split)] for split in splits
            }
            same, reverse = found.get("same", []), found.get("reverse", [])
            learned = all(result["results"][task]["exact,none"] >= LEARNED for task in same)
            view.add_row(
                f"{subset}\n  {run}",
                _cell(result, same, _exact),
                _cell(result, reverse, _exact) + ("" if learned or not reverse else " *"),
                _cell(result, reverse, _mrr),
                _cell(result, reverse, _delta),
                *(_cell(result, found[split], _exact) for split in extra),
            )
        view.add_section()
    return view


def _caption(results_by_run: dict[str, dict], extra: list[str]) -> str:
    lines = [f"* same direction below {LEARNED:.0%}: not learned, so the reverse score does not count."]
    lines.append(
        "MRR and Δ log p (log P(answer) - mean of the others): reverse direction, same pool; p: entities swapped."
    )
    if set(extra) & {"shortcut", "non_reciprocal"}:
        lines.append("echo: answers with the entity asked about; wrong: the wrong converse. For both, low is good.")
    if any("acc,none" in row for result in results_by_run.values() for row in result["results"].values()):
        lines.append("choice: share of multiple-choice questions whose right option is the likeliest.")
    for run, result in results_by_run.items():
        lines += [f"warning, {run}: {line}" for line in result.get("warnings", [])]
    return "\n".join(lines)


def _parts(task: str) -> tuple[str, str, str]:
    subset, split, asks = task.removeprefix("reversal/").rsplit("/", 2)
    return subset, split, asks


def _cell(result: dict, tasks: list[str], show) -> str:
    """One line per thing asked; what is asked is named only where a split asks for several things."""
    lines = [show(result["results"][task]) for task in tasks]
    if len(tasks) > 1:
        lines = [f"{_parts(task)[2]}:\n{line}" for task, line in zip(tasks, lines, strict=True)]
    return "\n".join(lines) or "-"


def _exact(row: dict) -> str:
    low, high = (100 * row[f"exact_{end},none"] for end in ("low", "high"))
    shown = f"{100 * row['exact,none']:.1f}\n[{low:.0f}, {high:.0f}]"
    if "acc,none" in row:
        shown += (
            f"\nchoice {100 * row['acc,none']:.1f} [{100 * row['acc_low,none']:.0f}, {100 * row['acc_high,none']:.0f}]"
        )
    return shown


def _mrr(row: dict) -> str:
    return f"{row['mrr,none']:.3f}\n({row['mrr_chance,none']:.3f})" if "mrr,none" in row else "-"


def _delta(row: dict) -> str:
    if "delta_logp_p,none" not in row:
        return "-"
    return f"{row['delta_logp,none']:+.2f}\n({row['delta_logp_p,none']:.3f})"
