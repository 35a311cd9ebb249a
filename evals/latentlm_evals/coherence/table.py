"""One table a section: a row for every score, a column for every run and depth, the nulls in brackets."""

from rich.table import Table

CAPTION = "score \\[95 %] (labels or partners shuffled, ± sd of that null | random init)"
AUXILIARY = ("_stderr", "_low", "_high", "_null_sd")


def table(results_by_run: dict[str, dict]) -> list[Table]:
    """``score [95 %] (labels shuffled | fresh weights)``; a dash where there is none: see the warnings below."""
    if not results_by_run:
        raise ValueError("results: none to compare: score a run first")
    tasks = list(dict.fromkeys(task for result in results_by_run.values() for task in result["results"]))
    sections = list(dict.fromkeys(task.split("/")[1] for task in tasks))
    views = [_section(section, tasks, results_by_run) for section in sections]
    notes = [(run, note) for run, result in results_by_run.items() for note in result["warnings"]]
    if notes:
        warned = Table(title="Warnings")
        warned.add_column("run", overflow="fold")
        warned.add_column("warning", overflow="fold")
        for run, note in notes:
            warned.add_row(_short(run), note)
        views.append(warned)
    return views


def _section(section: str, tasks: list[str], results: dict[str, dict]) -> Table:
    mine = [task for task in tasks if task.split("/")[1] == section]
    what = list(dict.fromkeys(task.split("/")[2].partition("@")[0] for task in mine))
    depths = list(dict.fromkeys(task.partition("@")[2] for task in mine))
    view = Table(title=f"Coherence: {section}", caption=CAPTION)
    view.add_column("of", overflow="fold")
    view.add_column("score", overflow="fold")
    for run in results:
        for depth in depths:
            view.add_column(f"{_short(run)}\n{'depth ' + depth if depth else ''}", justify="right")
    for name in what:
        rows = [f"coherence/{section}/{name}{'@' + depth if depth else ''}" for depth in depths]
        found = [result["results"].get(task, {}) for result in results.values() for task in rows]
        for key in dict.fromkeys(key for row in found for key in row if _is_score(key)):
            view.add_row(name, key.removesuffix(",none"), *(_cell(row, key.removesuffix(",none")) for row in found))
        view.add_section()
    return view


def _is_score(key: str) -> bool:
    name = key.removesuffix(",none")
    return key.endswith(",none") and not name.endswith((*AUXILIARY, "_shuffled", "_random"))


def _cell(row: dict, name: str) -> str:
    if f"{name},none" not in row:
        return "-"
    shuffled, spread, fresh = (row.get(f"{name}_{null},none") for null in ("shuffled", "null_sd", "random"))
    null = _number(shuffled) if spread is None else f"±{_number(spread)}"
    known = f" ({null} | {_number(fresh)})" if null != "-" or fresh is not None else ""
    low, high = (row.get(f"{name}_{end},none") for end in ("low", "high"))
    between = "" if low is None or high is None else f" \\[{_number(low)}, {_number(high)}]"
    return f"{_number(row[f'{name},none'])}{between}{known}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:.0f}"
    digits = f"{round(value, 2) + 0.0:.2f}"  # no -.00
    return digits.replace("0.", ".", 1) if digits.lstrip("-").startswith("0.") else digits


def _short(run: str) -> str:
    return "/".join(run.rstrip("/").split("/")[-2:])
