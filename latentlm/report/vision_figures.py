"""What a ViT's states tell of images: factors over depth, and the floors beside them."""

from collections.abc import Sequence
from math import nan
from typing import Any

from latentlm.report.probe_figures import COLORMAP, WIDTH, plain
from latentlm.report.run_record import Run

Figure = Any  # of matplotlib, which is optional and slow to import
FACTOR = "factor/"


def maps(runs: Sequence[Run]) -> Figure | None:
    """Depth by factor, a panel for each run; floors are the rows below its depths."""
    from matplotlib import figure as mpl

    shown = [(run, rows) for run in runs if (rows := rows_of(run, FACTOR))]
    if not shown:
        return None
    names = list(dict.fromkeys(key for _, rows in shown for row in rows.values() for key in row if FACTOR in key))
    heights = [0.3 * len(rows) + 0.4 for _, rows in shown]
    figure = mpl.Figure(figsize=(WIDTH, sum(heights) + 1.0), layout="constrained")
    axes = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
    image: Any = None
    for axis, (run, rows) in zip(axes, shown, strict=True):
        values = [[100 * row.get(name, nan) for name in names] for row in rows.values()]
        image = axis.imshow(values, aspect="auto", cmap=COLORMAP, vmin=0, vmax=100)
        for i, line in enumerate(values):
            for j, value in enumerate(line):
                if value == value:
                    axis.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color=_ink(value))
        axis.set_title(plain(run.label))
        axis.set_yticks(range(len(rows)), [plain(task) for task in rows])
        axis.grid(visible=False)
    axes[-1].set_xticks(
        range(len(names)), [plain(name.removeprefix(FACTOR)) for name in names], rotation=45, ha="right"
    )
    figure.colorbar(image, ax=list(axes), label="skill over chance, or R2, %", shrink=0.9, pad=0.01)
    return figure


def rows_of(run: Run, with_key: str = "") -> dict[str, dict[str, float]]:
    """Scores of `latentlm eval vision`, by depth or floor."""
    tasks = {task.removeprefix("vision/"): row for task, row in run.others.items() if task.startswith("vision/")}
    return {task: row for task, row in tasks.items() if any(key.startswith(with_key) for key in row)}


def _ink(value: float) -> str:
    return "black" if value > 55 else "white"
