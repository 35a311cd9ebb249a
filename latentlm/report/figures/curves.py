"""Curves: scores over depth with their 95 % bands, one panel for each score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latentlm.report.figures.palette import FLOOR, WIDTH, Figure, color, legend, line_style, plain
from latentlm.result import Estimate


@dataclass(frozen=True)
class Curve:
    """A score over depth.

    Attributes:
        run: number of the run it is of.
        scores: by depth.
        floor: the same of fresh weights, by depth, if there are any.
        chance: of a blind guess, if known.
    """

    run: int
    scores: Mapping[int, Estimate]
    floor: Mapping[int, float] | None = None
    chance: float | None = None


def panels_over_depth(panels: Mapping[str, Sequence[Curve]], labels: Sequence[str], y_title: str) -> Figure:
    """A panel for each name, in two columns; thin and dotted: fresh weights; grey: chance. Shares are in per cent."""
    from matplotlib import figure as mpl
    from matplotlib.ticker import MaxNLocator

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = mpl.Figure(figsize=(WIDTH, 2.5 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, (name, curves) in zip(axes, panels.items(), strict=False):
        axis.set_title(plain(name))
        for curve in curves:
            depths = sorted(curve.scores)
            scores = [curve.scores[depth].times(100.0) for depth in depths]
            bands = [score.interval or _from_stderr(score) for score in scores]
            axis.fill_between(
                depths, [low for low, _ in bands], [high for _, high in bands],
                color=color(curve.run), alpha=0.15, linewidth=0,
            )  # fmt: skip
            axis.plot(depths, [score.value for score in scores], linewidth=1.6, **line_style(curve.run))
            if curve.floor:
                floor = [100 * curve.floor.get(depth, float("nan")) for depth in depths]
                axis.plot(depths, floor, linewidth=0.9, linestyle=":", color=color(curve.run))
            if curve.chance is not None:
                axis.axhline(100 * curve.chance, color=FLOOR, linewidth=0.8)
        axis.set_ylim(0, 102)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("depth")
        axis.set_ylabel(y_title)
    legend(figure, labels)
    return figure


def _from_stderr(score: Estimate) -> tuple[float, float]:
    reach = 1.96 * (score.stderr or 0.0)
    return score.value - reach, score.value + reach
