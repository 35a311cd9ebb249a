"""Several networks in one table: each property at the depth that reads it best."""

from rich.table import Table


def table(results_by_run: dict[str, dict]) -> Table:
    """One row per property and run; accuracies in per cent."""
    warnings = [f"{run}: {told}" for run, result in results_by_run.items() for told in result["warnings"]]
    view = Table(
        title="Probes: accuracy on unseen entities and templates at the best depth, %",
        caption="\n".join(
            [
                "null: labels shuffled / fresh weights. k*: principal components for 95 % of the gain over chance. "
                "mlp: what a hidden layer adds. bits: uniform code / online code.",
                *(f"! {told}" for told in warnings),
            ]
        ),
    )
    for name in ("property", "run"):
        view.add_column(name, overflow="fold")
    for name in ("depth", "accuracy", "chance", "null", "selectivity", "k*", "mlp", "bits"):
        view.add_column(name, justify="right")
    names = dict.fromkeys(task.split("/")[1] for result in results_by_run.values() for task in result["results"])
    for name in names:
        for run, result in results_by_run.items():
            rows = {task: row for task, row in result["results"].items() if task.split("/")[1] == name}
            if rows:
                task, row = max(rows.items(), key=lambda item: item[1]["acc,none"])
                view.add_row(name, run, task.rsplit("/", 1)[1], *_cells(row))
        view.add_section()
    return view


def _cells(row: dict) -> list[str]:
    def percent(key: str) -> str:
        return f"{100 * row[key]:.1f}" if row.get(key) is not None else "-"

    directions = row["directions,none"]
    return [
        f"{percent('acc,none')} ± {100 * row['acc_stderr,none']:.1f}",
        percent("chance,none"),
        f"{percent('shuffled,none')} / {percent('random_init,none')}",
        percent("selectivity,none"),
        "-" if directions is None else f"{directions:.0f}",
        f"{100 * row['mlp_gap,none']:+.1f}",
        f"{row['compression,none']:.2f}",
    ]
