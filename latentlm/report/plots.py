"""The pictures of a report, one PNG each; the colour and line of a run are the same in all of them."""

import io
import itertools
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from latentlm.report import probe_figures as inside
from latentlm.report import vision_figures as seen
from latentlm.report.probe_figures import plain as _plain
from latentlm.report.run_record import ERRORS, Curve, Run, Task, finite, terms

Axes = Any  # of matplotlib, which is optional and slow to import
Figure = Any

# Okabe & Ito 2008, without yellow: told apart with colour-blind eyes and on paper
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":")
INK, GRID = "#333333", "#e3e3e3"
WIDTH = 9.0  # inches
MAX_NOISY = 150  # points; longer curves are drawn faint with a running mean on top
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.dpi": 110,
    "savefig.dpi": 160,
}


def color(k: int) -> str:
    """Colour of the k-th run."""
    return COLORS[k % len(COLORS)]


def _style(k: int) -> dict[str, Any]:
    """Dashes differ too, so that equal curves do not hide each other."""
    return {"color": color(k), "linestyle": DASHES[k % len(DASHES)]}


def draw(runs: Sequence[Run]) -> dict[str, bytes]:
    """Picture name -> PNG; a picture with nothing in it is left out."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise ValueError("matplotlib is missing: pip install 'latentlm[report]'") from None
    with mpl.rc_context(STYLE):
        figures = {"losses": _losses(runs), "reversal": _reversal(runs), "depth": _depth(runs)}
        figures |= {"probe": inside.maps(runs), "profiles": _profiles(runs), "transfer": inside.transfer(runs)}
        figures["vision"] = seen.maps(runs)
        return {name: _png(figure) for name, figure in figures.items() if figure is not None}


def _profiles(runs: Sequence[Run]) -> Figure | None:
    figure = inside.profiles(runs, _style)
    if figure is not None:
        _legend(figure, runs)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def _losses(runs: Sequence[Run]) -> Figure | None:
    from matplotlib import figure as mpl

    panels = [("loss", "Sum of all terms, training"), ("eval_loss", "Next-token loss, held-out text")]
    panels += [("data/value", "data: next-token loss, training"), ("learning_rate", "Learning rate")]
    for term in terms(runs):
        if term != "data":
            panels += [(f"{term}/value", f"{term}: value"), (f"{term}/weighted", f"{term}: as it enters the sum")]
    filled = {key for key, _ in panels if any(finite(run.curves.get(key, [])) for run in runs)}
    # value and weighted value of a term stay side by side, so a pair goes only when both are empty
    pairs = [pair for pair in zip(panels[::2], panels[1::2], strict=True) if filled & {key for key, _ in pair}]
    if not pairs:
        return None
    figure = mpl.Figure(figsize=(WIDTH, 2.5 * len(pairs) + 0.5), layout="constrained")
    axes = figure.subplots(len(pairs), 2, squeeze=False)
    for axis, (key, title) in zip(axes.flatten(), itertools.chain(*pairs), strict=True):
        if key not in filled:
            axis.set_axis_off()
            continue
        axis.set_title(_plain(title))
        axis.set_xlabel("step")
        axis.set_ylabel(_unit(key))
        for k, run in enumerate(runs):
            _line(axis, finite(run.curves.get(key, [])), k, smooth=key not in ("learning_rate", "eval_loss"))
    _legend(figure, runs)
    return figure


def _unit(key: str) -> str:
    if key in ("eval_loss", "data/value"):
        return "nats per token"
    return "learning rate" if key == "learning_rate" else "loss"


def _line(axis: Axes, curve: Curve, k: int, *, smooth: bool) -> None:
    if not curve:
        return
    steps, values = zip(*curve, strict=True)
    if smooth and len(curve) > MAX_NOISY:
        axis.plot(steps, values, color=color(k), linewidth=0.6, alpha=0.25)
        reach = len(values) // 60
        # centred: a mean over the past alone would draw a falling loss too high
        values = [fmean(values[max(0, j - reach) : j + reach + 1]) for j in range(len(values))]
    axis.plot(steps, values, linewidth=1.6, marker="o" if len(curve) < 12 else None, markersize=3.5, **_style(k))


def _reversal(runs: Sequence[Run]) -> Figure | None:
    """Exact match with intervals, trained and reverse direction; mistakes in a panel of their own."""
    from matplotlib import figure as mpl

    known = {task.key: task for run in runs for task in run.tasks or []}
    tasks = [known[key] for key in sorted(known)]
    panels = [[task for task in tasks if task.split not in ERRORS], [task for task in tasks if task.split in ERRORS]]
    has_options = any("acc" in task.scores for run in runs for task in run.tasks or [])
    titles = ["Exact match, % (higher is better)", "Mistakes, % (lower is better)"]
    titles[0] += "; ◇: likeliest of the question's options" if has_options else ""
    shown = [(title, part) for title, part in zip(titles, panels, strict=True) if part]
    if not shown:
        return None
    asked = [run for run in runs if run.tasks]
    heights = [len(part) * (0.26 * len(asked) + 0.22) + 0.5 for _, part in shown]
    figure = mpl.Figure(figsize=(WIDTH, sum(heights) + 0.6), layout="constrained")
    axes = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, part) in zip(axes, shown, strict=True):
        axis.set_title(title)
        _bars(axis, part, {runs.index(run): run for run in asked})
    _legend(figure, runs, patches=True, notes={run.label: " (not measured)" for run in runs if not run.tasks})
    return figure


def _bars(axis: Axes, tasks: list[Task], runs: dict[int, Run]) -> None:
    thick = 0.8 / len(runs)
    for row, task in enumerate(tasks):
        for slot, (k, run) in enumerate(runs.items()):
            mine = next((found for found in run.tasks or [] if found.key == task.key), None)
            if mine is None:
                continue
            place = row + (slot - (len(runs) - 1) / 2) * thick
            value, low, high = (100 * mine.scores[name] for name in ("exact", "exact_low", "exact_high"))
            axis.barh(place, value, height=0.88 * thick, color=color(k))
            axis.plot([low, high], [place, place], color=INK, linewidth=1.2, marker="|", markersize=5)
            said = f"{value:.1f}"
            if "acc" in mine.scores:
                choice = 100 * mine.scores["acc"]
                axis.plot(choice, place, "D", markersize=5, markerfacecolor="white", color=color(k), clip_on=False)
                said += f"  ◇ {choice:.1f}"
            axis.text(103, place, said, va="center", ha="left", fontsize=8.5)
        if row and task.subset != tasks[row - 1].subset:
            axis.axhline(row - 0.5, color="#bbbbbb", linewidth=0.8)
    axis.set_yticks(range(len(tasks)), [_plain(f"{task.subset}  {task.asked}") for task in tasks])
    axis.set_ylim(len(tasks) - 0.5, -0.5)
    axis.set_xlim(0, 100)
    axis.set_xlabel("% of items")
    axis.grid(axis="y", visible=False)


def _depth(runs: Sequence[Run]) -> Figure | None:
    from matplotlib import figure as mpl
    from matplotlib.ticker import MaxNLocator

    if not any(run.depth for run in runs):
        return None
    figure = mpl.Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axis = figure.subplots()
    for k, run in enumerate(runs):
        if run.depth:
            axis.plot(run.depth["depth"], run.depth["rank"], marker="o", markersize=4, linewidth=1.6, **_style(k))
    axis.set_xlabel("depth (0 = input of the first block)")
    axis.set_ylabel("effective rank")
    axis.set_ylim(0, 1.08 * axis.dataLim.ymax)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    notes = {run.label: f" (width {run.depth['dim']})" if run.depth else " (not measured)" for run in runs}
    _legend(figure, runs, notes=notes)
    return figure


def _legend(figure: Figure, runs: Sequence[Run], *, patches: bool = False, notes: dict[str, str] | None = None) -> None:
    """Above all panels, so that it never covers data; one run needs none unless there is a note."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    labels = [_plain(run.label + (notes or {}).get(run.label, "")) for run in runs]
    marks = [Patch(color=color(k)) if patches else Line2D([], [], **_style(k)) for k in range(len(runs))]
    fits = sum(len(label) + 8 for label in labels) <= 110
    columns = len(runs) if fits else max(1, 110 // (max(map(len, labels)) + 8))
    figure.legend(marks, labels, loc="outside upper left", ncols=columns, frameon=False)
