"""Pictures of the training itself: loss curves of every term, and the rank of hidden states over depth."""

import itertools
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from latentlm.report.figures.palette import WIDTH, Figure, color, legend, line_style, plain
from latentlm.report.run_record import Curve, RunRecord, finite, terms

MAX_NOISY = 150  # points; longer curves are drawn faint with a running mean on top


def losses(runs: Sequence[RunRecord]) -> Figure | None:
    """The sum and the learning rate, the next-token loss, and every term; two panels a row."""
    from matplotlib import figure as mpl

    rows = [
        [("loss", "Sum of all terms, training"), ("learning_rate", "Learning rate")],
        [("data/value", "data: next-token loss, training"), ("eval_loss", "Next-token loss, held-out text")],
    ]
    values: list[tuple[str, str]] = []
    for term in terms(runs):
        if term != "data":
            value, weighted = (f"{term}/value", f"{term}: value"), (f"{term}/weighted", f"{term}: as it enters the sum")
            # with a weight of 1 the two are one curve
            if all(run.curves.get(value[0]) == run.curves.get(weighted[0]) for run in runs):
                values.append(value)
            else:
                rows.append([value, weighted])
    rows += [list(pair) for pair in itertools.zip_longest(values[::2], values[1::2], fillvalue=("", ""))]
    filled = {key for row in rows for key, _ in row if any(finite(run.curves.get(key, [])) for run in runs)}
    # a row that one panel is missing in moves it to the left
    rows = [sorted(row, key=lambda panel: panel[0] not in filled) for row in rows]
    rows = [row for row in rows if row[0][0] in filled]
    if not rows:
        return None
    figure = mpl.Figure(figsize=(WIDTH, 2.5 * len(rows) + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), 2, squeeze=False)
    for axis, (key, title) in zip(axes.flatten(), itertools.chain(*rows), strict=True):
        if key not in filled:
            axis.set_axis_off()
            continue
        axis.set_title(plain(title))
        axis.set_xlabel("step")
        axis.set_ylabel(_unit(key))
        for run in runs:
            _line(axis, finite(run.curves.get(key, [])), run.number, smooth=key not in ("learning_rate", "eval_loss"))
    legend(figure, [run.label for run in runs])
    return figure


def _unit(key: str) -> str:
    if key in ("eval_loss", "data/value"):
        return "nats per token"
    return "learning rate" if key == "learning_rate" else "loss"


def _line(axis: Any, curve: Curve, number: int, *, smooth: bool) -> None:
    if not curve:
        return
    steps, values = zip(*curve, strict=True)
    if smooth and len(curve) > MAX_NOISY:
        axis.plot(steps, values, color=color(number), linewidth=0.6, alpha=0.25)
        reach = len(values) // 60
        # centred: a mean over the past alone would draw a falling loss too high
        values = [fmean(values[max(0, j - reach) : j + reach + 1]) for j in range(len(values))]
    marker = "o" if len(curve) < 12 else None
    axis.plot(steps, values, linewidth=1.6, marker=marker, markersize=3.5, **line_style(number))


def rank_over_depth(runs: Sequence[RunRecord]) -> Figure | None:
    """Effective rank of the hidden states at every depth."""
    from matplotlib import figure as mpl
    from matplotlib.ticker import MaxNLocator

    if not any(run.depth for run in runs):
        return None
    figure = mpl.Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axis = figure.subplots()
    for run in runs:
        if run.depth:
            line = line_style(run.number)
            axis.plot(run.depth["depth"], run.depth["rank"], marker="o", markersize=4, linewidth=1.6, **line)
    axis.set_xlabel("depth (0 = input of the first block)")
    axis.set_ylabel("effective rank")
    axis.set_ylim(0, 1.08 * axis.dataLim.ymax)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    notes = {run.label: f" (width {run.depth['dim']})" if run.depth else " (not measured)" for run in runs}
    legend(figure, [run.label for run in runs], notes=notes)
    return figure
