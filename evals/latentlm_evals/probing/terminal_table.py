"""Several networks in one table: each property at the depth that reads it best."""

from rich.table import Table

from latentlm.result import Result
from latentlm_evals.probing.task_names import Profile, profiles


def table(results_by_run: dict[str, Result]) -> list[Table]:
    """One row per property and run; accuracies in per cent."""
    if not results_by_run:
        raise ValueError("results: none to compare: score a run first")
    warnings = [f"{run}: {line}" for run, result in results_by_run.items() for line in result.warnings]
    view = Table(
        title="Probes: accuracy on unseen entities and templates, %",
        caption="\n".join(
            [
                "depth, accuracy: chosen on the other folds [95 % over entities]; the rest: at the best depth. null: "
                "labels shuffled / fresh weights there. k*: principal / PLS components for 95 % of the gain over "
                "chance. mlp: what a hidden layer adds. bits: uniform code / online code (the same for control "
                "labels).",
                *(f"! {line}" for line in warnings),
            ]
        ),
    )
    for name in ("property", "run"):
        view.add_column(name, overflow="fold")
    for name in ("depth", "accuracy", "chance", "null", "select.", "k*", "mlp", "bits"):
        view.add_column(name, justify="right")
    runs = {run: profiles(result) for run, result in results_by_run.items()}
    for name in dict.fromkeys(name for own in runs.values() for name in own):
        for run, own in runs.items():
            if name in own:
                view.add_row(name, "/".join(run.rstrip("/").split("/")[-2:]), *_cells(own[name]))
        view.add_section()
    return [view]


def _cells(profile: Profile) -> list[str]:
    best, picked = profile.depths[profile.best()], profile.chosen

    def percent(key: str) -> str:
        return f"{100 * best.value(key):.1f}" if best.has(key) else "-"

    def number(key: str, digits: int) -> str:
        return f"{best.value(key):.{digits}f}" if best.has(key) else "-"

    accuracy = picked.scores["acc"].times(100.0)
    low, high = accuracy.interval or (accuracy.value, accuracy.value)
    return [
        f"{picked.value('depth'):.0f}",
        f"{accuracy.value:.1f} \\[{low:.0f}, {high:.0f}]",
        percent("chance"),
        f"{percent('shuffled')} / {percent('random_init')}",
        percent("selectivity"),
        f"{number('pca_k', 0)} / {number('pls_k', 0)}",
        f"{100 * best.value('mlp_gap'):+.1f}",
        f"{number('compression', 2)} ({number('compression_control', 2)})",
    ]
