"""Pictures of what lies inside: readouts over depth, depth x property maps, readouts carried to other contexts."""

from collections.abc import Sequence
from typing import Any

from latentlm.report.run_record import Probe, Run

Figure = Any  # of matplotlib, which is optional and slow to import
COLORMAP = "cividis"  # made for colour-blind eyes, and as light in grey as in colour
WIDTH = 9.0


def maps(runs: Sequence[Run]) -> Figure | None:
    """What is read off at which depth, one panel for each run; a ring marks the best depth."""
    from matplotlib import figure as mpl

    shown = [(run, run.probes) for run in runs if run.probes]
    if not shown:
        return None
    heights = [0.34 * len(probes) + 0.55 for _, probes in shown]
    figure = mpl.Figure(figsize=(WIDTH, sum(heights) + 0.7), layout="constrained")
    axes = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    image: Any = None
    for axis, (run, probes) in zip(axes, shown, strict=True):
        image = axis.imshow([probe.gain() for probe in probes], aspect="auto", cmap=COLORMAP, vmin=0, vmax=1)
        for row, probe in enumerate(probes):
            axis.plot(probe.best(), row, marker="o", markersize=7, markerfacecolor="none", color="white")
            axis.plot(probe.best(), row, marker="o", markersize=9, markerfacecolor="none", color="black", linewidth=0.5)
        depths = probes[0].depths
        step = max(1, len(depths) // 16)
        axis.set_title(plain(run.label))
        axis.set_yticks(range(len(probes)), [plain(probe.name) for probe in probes])
        axis.set_xticks(range(0, len(depths), step), depths[::step])
        axis.grid(visible=False)
    axes[-1].set_xlabel("depth (0 = input of the first block)")
    figure.colorbar(image, ax=list(axes), label="accuracy: 0 = largest class, 1 = all", shrink=0.9, pad=0.01)
    return figure


def profiles(runs: Sequence[Run], style: Any) -> Figure | None:
    """Accuracy over depth with its 95 % band, one panel for each property; thin and dotted: fresh weights."""
    from matplotlib import figure as mpl

    names = property_names(runs)
    if not names:
        return None
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    figure = mpl.Figure(figsize=(WIDTH, 2.5 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes, names, strict=False):
        axis.set_title(plain(name))
        for k, run in enumerate(runs):
            for probe in (each for each in run.probes or [] if each.name == name):
                _profile(axis, probe, style(k))
        axis.set_ylim(0, 102)
        axis.set_xlabel("depth")
        axis.set_ylabel("accuracy, %")
    return figure


def _profile(axis: Any, probe: Probe, style: dict[str, Any]) -> None:
    accuracy = [100 * value for value in probe.scores["acc"]]
    low, high = ([100 * value for value in probe.scores[f"acc_{end}"]] for end in ("low", "high"))
    axis.fill_between(probe.depths, low, high, color=style["color"], alpha=0.15, linewidth=0)
    axis.plot(probe.depths, accuracy, linewidth=1.6, **style)
    if "random_init" in probe.scores:
        fresh = [100 * value for value in probe.scores["random_init"]]
        axis.plot(probe.depths, fresh, linewidth=0.9, linestyle=":", color=style["color"])
    axis.axhline(100 * probe.scores["chance"][0], color="#999999", linewidth=0.8)


def transfer(runs: Sequence[Run]) -> Figure | None:
    """Readouts trained in one kind of context (row) and used in another (column), a panel for each run and concept."""
    from matplotlib import figure as mpl

    names = list(dict.fromkeys(name for run in runs for name in run.transfer))
    if not names:
        return None
    shown = [run for run in runs if run.transfer]
    # a column for each run, or, of a single one, three maps in a row
    rows = [[(run, name) for run in shown] for name in names]
    if len(shown) == 1:
        rows = [[(shown[0], name) for name in names[k : k + 3]] for k in range(0, len(names), 3)]
    columns = max(len(shown), 3)
    size = WIDTH / columns
    figure = mpl.Figure(figsize=(WIDTH, (size + 0.6) * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    image: Any = None
    for row, panels in zip(axes, rows, strict=True):
        for axis in row:
            axis.set_axis_off()
        drawn = [(axis, run, name) for axis, (run, name) in zip(row, panels, strict=False) if name in run.transfer]
        for axis, run, name in drawn:
            axis.set_axis_on()
            image = _square(axis, run.transfer[name], run.contexts)
            axis.set_title(plain(f"{run.label}\n{name}"), fontsize=9)
            axis.set_xlabel("read in context")
        drawn[0][0].set_ylabel("trained in context")
        # names are long: beside the first map they serve those that have the same
        first = drawn[0][1].contexts
        for axis, run, _ in drawn[1:]:
            if run.contexts == first:
                axis.set_yticklabels([])
    last = axes[0][len(rows[0]) - 1]
    figure.colorbar(image, ax=last, pad=0.06, aspect=14, label="0 = chance, 1 = all")
    return figure


def _square(axis: Any, values: list[list[float]], contexts: list[str]) -> Any:
    for i, line in enumerate(values):
        for j, value in enumerate(line):
            ink = "black" if value > 0.55 else "white"
            said = f"{round(value, 2) + 0.0:.2f}".replace("0.", ".") if value == value else ""
            axis.text(j, i, said, ha="center", va="center", fontsize=7, color=ink)
    places = range(len(values))
    named = len(contexts) == len(values)
    names = [plain(name) for name in contexts] if named else [str(k + 1) for k in places]
    axis.set_xticks(places, names, fontsize=8, **({"rotation": 40, "ha": "right"} if named else {}))
    axis.set_yticks(places, names, fontsize=8)
    axis.grid(visible=False)
    return axis.imshow(values, cmap=COLORMAP, vmin=0, vmax=1)


def property_names(runs: Sequence[Run]) -> list[str]:
    """Of all runs' probes, in their order."""
    return list(dict.fromkeys(probe.name for run in runs for probe in run.probes or []))


def plain(text: str) -> str:
    """Text that matplotlib takes literally: a pair of dollars would start a formula."""
    return text.replace("$", r"\$")
