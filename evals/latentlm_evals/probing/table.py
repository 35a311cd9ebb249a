"""Several networks in one table: each property at the depth that reads it best."""

from rich.table import Table


def table(results_by_run: dict[str, dict]) -> Table:
    """One row per property and run; accuracies in per cent."""
    warnings = [f"{run}: {told}" for run, result in results_by_run.items() for told in result["warnings"]]
    view = Table(
        title="Probes: accuracy on unseen entities and templates, %",
        caption="\n".join(
            [
                "depth, accuracy: chosen on the other folds [95 % over entities]; the rest: at the best depth. null: "
                "labels shuffled / fresh weights there. k*: principal / PLS components for 95 % of the gain over "
                "chance. mlp: what a hidden layer adds. bits: uniform code / online code (the same for control "
                "labels).",
                *(f"! {told}" for told in warnings),
            ]
        ),
    )
    for name in ("property", "run"):
        view.add_column(name, overflow="fold")
    for name in ("depth", "accuracy", "chance", "null", "select.", "k*", "mlp", "bits"):
        view.add_column(name, justify="right")
    names = dict.fromkeys(task.split("/")[1] for result in results_by_run.values() for task in result["results"])
    for name in names:
        for run, result in results_by_run.items():
            rows = {
                task.rsplit("/", 1)[1]: row for task, row in result["results"].items() if task.split("/")[1] == name
            }
            if rows:
                view.add_row(name, "/".join(run.rstrip("/").split("/")[-2:]), *_cells(rows.pop("chosen"), rows))
        view.add_section()
    return view


def _cells(picked: dict, depths: dict[str, dict]) -> list[str]:
    best = max(depths.values(), key=lambda row: row["acc,none"])

    def percent(key: str, row: dict = best) -> str:
        return f"{100 * row[key]:.1f}" if row.get(key) is not None else "-"

    def number(key: str, digits: int) -> str:
        return "-" if best.get(key) is None else f"{best[key]:.{digits}f}"

    low, high = (f"{100 * picked[f'acc_{end},none']:.0f}" for end in ("low", "high"))
    return [
        f"{picked['depth,none']:.0f}",
        f"{percent('acc,none', picked)} \\[{low}, {high}]",
        percent("chance,none"),
        f"{percent('shuffled,none')} / {percent('random_init,none')}",
        percent("selectivity,none"),
        f"{number('pca_k,none', 0)} / {number('pls_k,none', 0)}",
        f"{100 * best['mlp_gap,none']:+.1f}",
        f"{number('compression,none', 2)} ({number('compression_control,none', 2)})",
    ]
