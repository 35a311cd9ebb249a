"""What the report shows of this evaluation: readouts carried from one kind of context to another.

Its other scores are in the report's table of all scores.
"""

import math
from collections.abc import Sequence
from typing import Any

from latentlm.report.contract import EvaluatedRun, Note, Picture, Section
from latentlm.report.figures.maps import Map, square_maps
from latentlm.report.figures.palette import png

NOTE = (
    "A readout trained in one kind of context and used in another. One concept: the square is even. A concept in "
    "pieces: only its diagonal is bright."
)


def report_sections(runs: Sequence[EvaluatedRun]) -> list[Section]:
    """One picture for all concepts and depths."""
    maps = [(run, transfer_maps(run)) for run in runs]
    maps = [(run, own) for run, own in maps if own]
    if not maps:
        return []
    names = list(dict.fromkeys(name for _, own in maps for name in own))
    # a column for each run, or, of a single one, three maps in a row
    panels = [[own.get(name) for _, own in maps] for name in names]
    if len(maps) == 1:
        own = maps[0][1]
        panels = [[own[name] for name in names[k : k + 3]] for k in range(0, len(names), 3)]
    figure = square_maps(panels, "0 = chance, 1 = all", "trained in context", "used in context")
    picture = Picture("transfer", "Readouts used in other contexts", png(figure))
    return [Section("Transfer of readouts", [picture, Note(NOTE)])]


def transfer_maps(run: EvaluatedRun) -> dict[str, Map]:
    """A map for each concept and depth; rows and columns have the contexts' names where the result says them."""
    extra: dict[str, Any] = {} if run.result is None else run.result.extra
    contexts = [str(name) for name in extra.get("contexts", [])]
    found = {}
    for name, square in extra.get("transfer", {}).items():
        values = [[math.nan if value is None else float(value) for value in line] for line in square]
        sides = contexts if len(contexts) == len(values) else [str(k + 1) for k in range(len(values))]
        found[name] = Map(f"{run.label}\n{name}", sides, sides, values)
    return found
