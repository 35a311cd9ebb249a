"""Maps of scores: one panel above the other, a row for each property or depth, brighter where more is read off."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latentlm.report.figures.palette import COLORMAP, WIDTH, Figure, plain


@dataclass(frozen=True)
class Map:
    """One panel.

    Attributes:
        title: above it.
        rows, columns: names.
        values: rows by columns, 0 .. 1; NaN where there is none.
        rings: column that is marked in each row.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    rings: Sequence[int] = ()


def stacked_maps(maps: Sequence[Map], label: str, *, column_title: str = "", numbers: bool = False) -> Figure:
    """Panels with one scale; `numbers` writes each value into its cell, in per cent."""
    from matplotlib import figure as mpl

    height = 0.3 if numbers else 0.34
    heights = [height * len(each.rows) + 0.55 for each in maps]
    figure = mpl.Figure(figsize=(WIDTH, sum(heights) + 1.0), layout="constrained")
    axes = figure.subplots(len(maps), 1, squeeze=False, height_ratios=heights)[:, 0]
    image: Any = None
    for axis, each in zip(axes, maps, strict=True):
        image = axis.imshow(each.values, aspect="auto", cmap=COLORMAP, vmin=0, vmax=1)
        if numbers:
            _write(axis, each.values)
        for row, column in enumerate(each.rings):
            axis.plot(column, row, marker="o", markersize=7, markerfacecolor="none", color="white")
            axis.plot(column, row, marker="o", markersize=9, markerfacecolor="none", color="black", linewidth=0.5)
        axis.set_title(plain(each.title))
        axis.set_yticks(range(len(each.rows)), [plain(name) for name in each.rows])
        step = max(1, len(each.columns) // 16)
        turned = {"rotation": 45, "ha": "right"} if max(map(len, each.columns)) > 4 else {}
        names = [plain(name) for name in each.columns]
        axis.set_xticks(range(0, len(names), step), names[::step], **turned)
        axis.grid(visible=False)
    axes[-1].set_xlabel(column_title)
    figure.colorbar(image, ax=list(axes), label=label, shrink=0.9, pad=0.01)
    return figure


def square_maps(panels: Sequence[Sequence[Map | None]], label: str, row_title: str, column_title: str) -> Figure:
    """A grid of square maps with numbers in them; None leaves a place empty."""
    from matplotlib import figure as mpl

    columns = max(3, *map(len, panels))
    size = WIDTH / columns
    figure = mpl.Figure(figsize=(WIDTH, (size + 0.6) * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), columns, squeeze=False)
    image: Any = None
    for row, maps in zip(axes, panels, strict=True):
        for axis in row:
            axis.set_axis_off()
        drawn = [(axis, each) for axis, each in zip(row, maps, strict=False) if each is not None]
        for axis, each in drawn:
            axis.set_axis_on()
            image = axis.imshow(each.values, cmap=COLORMAP, vmin=0, vmax=1)
            _write(axis, each.values, digits=2)
            axis.set_title(plain(each.title), fontsize=9)
            turned = {"rotation": 40, "ha": "right"} if max(map(len, each.columns)) > 2 else {}
            axis.set_xticks(range(len(each.columns)), list(map(plain, each.columns)), fontsize=8, **turned)
            axis.set_yticks(range(len(each.rows)), list(map(plain, each.rows)), fontsize=8)
            axis.grid(visible=False)
            axis.set_xlabel(column_title)
        drawn[0][0].set_ylabel(row_title)
        # names are long: beside the first map they serve those that have the same
        for axis, each in drawn[1:]:
            if each.rows == drawn[0][1].rows:
                axis.set_yticklabels([])
    figure.colorbar(image, ax=axes[0][len(panels[0]) - 1], pad=0.06, aspect=14, label=label)
    return figure


def _write(axis: Any, values: Sequence[Sequence[float]], digits: int = 0) -> None:
    for i, line in enumerate(values):
        for j, value in enumerate(line):
            if value == value:
                said = f"{round(value, 2) + 0.0:.2f}".replace("0.", ".") if digits else f"{100 * value:.0f}"
                ink = "black" if value > 0.55 else "white"
                axis.text(j, i, said, ha="center", va="center", fontsize=7, color=ink)
