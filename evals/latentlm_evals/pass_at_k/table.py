"""Several runs in one table."""

from rich.table import Table


def table(results_by_run: dict[str, dict]) -> Table:
    """One row a run; pass@k in % with its 95 % interval over problems."""
    if not results_by_run:
        raise ValueError("results: none to compare: score a run first")
    rows = {run: result["results"]["pass_at_k"] for run, result in results_by_run.items()}
    names = sorted(
        {key.removesuffix(",none") for row in rows.values() for key in row if "@" in key and "_" not in key},
        key=lambda name: int(name.partition("@")[2]),
    )
    view = Table(title="pass@k, %", caption=_caption(results_by_run), caption_justify="left")
    view.add_column("run", overflow="fold")
    for name in names:
        view.add_column(name, justify="right")
    view.add_column("problems", justify="right")
    for run, row in rows.items():
        cells = [_cell(row, name) for name in names]
        view.add_row(run, *cells, str(results_by_run[run]["n-samples"]["pass_at_k"]["effective"]))
    return view


def _cell(row: dict, name: str) -> str:
    if f"{name},none" not in row:
        return "-"
    value, low, high = (100 * row[f"{name}{end},none"] for end in ("", "_low", "_high"))
    return f"{value:.1f} [{low:.0f}, {high:.0f}]"


def _caption(results_by_run: dict[str, dict]) -> str:
    lines = []
    for run, result in results_by_run.items():
        config = result["config"]
        lines.append(f"{run}: {config['samples']} answers a problem at temperature {config['temperature']:g}")
        lines += [f"warning, {run}: {line}" for line in result["warnings"]]
    return "\n".join(lines)
