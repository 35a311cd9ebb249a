"""Sections about probes, readouts in other contexts and any other evaluation in lm-eval's shape."""

import math
from collections.abc import Sequence
from html import escape

from latentlm.report.probe_figures import property_names
from latentlm.report.run_record import Run
from latentlm.report.sections import number, table, titled
from latentlm.report.vision_figures import rows_of

ASIDE = ("_stderr", "_low", "_high")
SEEN = {
    "level/detail": "detail factors",
    "level/semantic": "semantic factors",
    "level/nuisance": "nuisance",
    "level/noise": "noise",
    "knn": "kNN",
    "linear": "linear",
    "attentive": "attentive",
    "finetune": "fine-tuned",
    "pixels/linear": "pixels, linear R2",
}


def probes(runs: Sequence[Run], picture: str) -> str:
    """Every property at the depth that reads it best, beside its nulls."""
    rows = []
    for name in property_names(runs):
        for run in runs:
            for probe in (each for each in run.probes or [] if each.name == name):
                k = probe.best()
                here = {key: values[k] for key, values in probe.scores.items()}
                rows.append(
                    [
                        escape(name),
                        titled(runs, run),
                        str(probe.depths[k]),
                        _accuracy(here),
                        _accuracy(probe.chosen),
                        *(_percent(here.get(key)) for key in ("chance", "shuffled", "random_init", "selectivity")),
                        _percent(here.get("mlp_gap")),
                        *(
                            number(_there(here.get(key)))
                            for key in ("pca_k", "pls_k", "compression", "compression_control")
                        ),
                    ]
                )
    if not rows:
        return ""
    head = ["property", "run", "best depth", "accuracy, %", "depth chosen by others", "largest class"]
    head += [
        "labels shuffled",
        "fresh weights",
        "selectivity",
        "MLP adds",
        "k* PCA",
        "k* PLS",
        "compression",
        "of control",
    ]
    note = (
        "Test inputs share neither entities nor templates with the training ones; intervals and bands are 95 % over "
        "entities. The best depth is chosen on the inputs it is scored on, so it flatters a little; beside it the "
        "accuracy at the depth that is best for the other folds. Dotted: the same network with fresh weights. Rings: "
        "best depth. k*: components for 95 % of the gain. Compression: uniform code / online code, and the same for "
        "control labels."
    )
    return picture + table(head, rows, left=2) + f"<p class=note>{note}</p>"


def transfer(picture: str) -> str:
    """Readouts carried from one kind of context to another."""
    if not picture:
        return ""
    note = (
        "A readout trained in one kind of context and used in another. One concept: the square is even. "
        "A concept in pieces: only its diagonal is bright."
    )
    return picture + f"<p class=note>{note}</p>"


def vision(runs: Sequence[Run], picture: str) -> str:
    """Every depth and every floor of every run, with what is behind the picture in means."""
    found = [(run, task, row) for run in runs for task, row in rows_of(run).items()]
    keys = [key for key in SEEN if any(key in row for _, _, row in found)]
    if not keys:
        return ""
    rows = [[titled(runs, run), escape(task), *(_percent(row.get(key)) for key in keys)] for run, task, row in found]
    note = (
        "Read off linearly from frozen states, %: skill over chance for classes, R2 for magnitudes. Nuisance is "
        "brightness; noise cannot be predicted, so reading it means that pixels are kept. random: fresh weights."
    )
    return (
        picture + table(["run", "features", *(SEEN[key] for key in keys)], rows, left=2) + f"<p class=note>{note}</p>"
    )


def others(runs: Sequence[Run]) -> str:
    """Every score of every other evaluation, the runs side by side with intervals where there are any."""
    keys = {
        (task, key): None for run in runs for task, row in run.others.items() for key in row if not key.endswith(ASIDE)
    }
    if not keys:
        return ""
    rows = [[escape(task), escape(key), *(_cell(run.others.get(task, {}), key) for run in runs)] for task, key in keys]
    whole = table(["task", "score", *(titled(runs, run) for run in runs)], rows, left=2)
    whole += "<p class=note>Intervals are 95 %. A dash: the score was not asked for or does not exist.</p>"
    return whole if len(rows) <= 40 else f"<details><summary>{len(rows)} scores</summary>{whole}</details>"


def _cell(row: dict[str, float], key: str) -> str:
    value, low, high, stderr = (_there(row.get(f"{key}{end}")) for end in ("", "_low", "_high", "_stderr"))
    if value is not None and low is not None and high is not None:
        return f"{number(value)} <small>[{number(low)}, {number(high)}]</small>"
    if value is not None and stderr is not None:
        return f"{number(value)} <small>&plusmn; {number(1.96 * stderr)}</small>"
    return number(value)


def _accuracy(row: dict[str, float]) -> str:
    if "acc" not in row:
        return "-"
    return f"{100 * row['acc']:.1f} <small>[{100 * row['acc_low']:.0f}, {100 * row['acc_high']:.0f}]</small>"


def _percent(value: float | None) -> str:
    return "-" if _there(value) is None else f"{100 * value:.1f}"  # type: ignore[operator]


def _there(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
