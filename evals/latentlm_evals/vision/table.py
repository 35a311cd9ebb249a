"""Runs side by side, depth by depth, with the floors below each."""

import math

from rich.table import Table

from latentlm.data.images.scenes import LEVELS

PROBES = {"knn": "kNN", "linear": "linear", "attentive": "attentive", "finetune": "fine-tune"}
SUMS = {f"level/{level}": level for level in LEVELS if level != "later"}
PIXELS = {"pixels/linear": "pixels, linear", "pixels/decoder": "pixels, decoder"}
FACTORS = {f"factor/{name}": name for names in LEVELS.values() for name in names}
UNSEEN = {"factor/body": "body, seen", "unseen/body": "unseen", "factor/top": "top, seen", "unseen/top": "unseen"}
CHANGED = {f"change/{name}": name for name in ("shift", "grow", "recolour", "add_marble")}
BROKEN = {f"fracture/{name}": f"fracture: {name}" for name in ("fur", "relation", "shuffled")}
COLUMNS = 8  # that a terminal of 100 characters holds
LATER = {f"later/{size}": f"chalk, {size} labels" for size in (100, 400, 1600)}


def table(results: dict[str, dict]) -> list[Table]:
    """What classes and pixels can be read, every factor, and what readouts are good for beyond the data they saw."""
    if not results:
        raise ValueError("results: none to compare: score a run first")
    views = [
        _view(results, "Probes (accuracy, %), and pixels (R2, %)", PROBES | PIXELS),
        _view(results, "Means over the factors of a level (skill or R2, %)", SUMS),
        *(
            _view(results, "Factors read off linearly: skill over chance for classes, R2 for magnitudes, %", part)
            for part in (dict(list(FACTORS.items())[:COLUMNS]), dict(list(FACTORS.items())[COLUMNS:]))
        ),
        _view(
            results,
            "Combinations never seen (skill, %), and a change as one map (EQ gain, %; 0 = invariant)",
            UNSEEN | CHANGED,
        ),
        _view(
            results,
            "Fracture of the body's readout over contexts (0 = one for all), and a later task (skill, %)",
            BROKEN | LATER,
        ),
    ]
    views = [view for view in views if view is not None]
    told = sorted({line for result in results.values() for line in result.get("warnings", ())})
    if views and told:
        views[-1].caption = "\n".join(told)
    return views


def _view(results: dict[str, dict], title: str, columns: dict[str, str]) -> Table | None:
    rows = [(run, score) for run, result in results.items() for score in result["results"].values()]
    shown = [key for key in columns if any(f"{key},none" in score for _, score in rows)]
    if not shown:
        return None
    view = Table(title=title)
    if len(results) > 1:
        view.add_column("run", overflow="fold")
    view.add_column("features")
    for key in shown:
        view.add_column(columns[key], justify="right")
    for run, result in results.items():
        for score in result["results"].values():
            cells = [_cell(score.get(f"{key},none"), key) for key in shown]
            view.add_row(*([run] if len(results) > 1 else []), score["alias"], *cells)
        view.add_section()
    return view


def _cell(value: float | None, key: str) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.2f}" if key in BROKEN else f"{100 * value:.1f}"
