"""Which positions and named index sets the terms of an objective read."""

from collections.abc import Iterable

from latentlm.components.positions import At, Next
from latentlm.components.units import Unit, UnitsAlone, units_alone
from latentlm.objective.level_table import Levels
from latentlm.objective.terms import Predict, Regularize
from latentlm.objective.unit_levels import UnitLevels

WrittenTerm = Predict | Regularize | Levels | UnitLevels


def sets_read(term: WrittenTerm) -> list[str]:
    """Named sets that a term reads."""
    return [at for places in places_read(term) for at in places if isinstance(at, str)]


def units_read(terms: Iterable[WrittenTerm]) -> tuple[tuple[str, ...], tuple[UnitsAlone, ...]]:
    """Grains that terms read, and which units of them alone."""
    units = [at for term in terms for places in places_read(term) for at in places if isinstance(at, Unit)]
    grains = dict.fromkeys(grain for unit in units for grain in unit.grains)
    return tuple(grains), units_alone(units)


def neighbours_read(terms: Iterable[WrittenTerm]) -> tuple[tuple[str, int], ...]:
    """Grain and offset of units that terms relate to one further on, or further back, in the same document."""
    units = [at for term in terms for places in places_read(term) for at in places if isinstance(at, Unit)]
    return tuple(dict.fromkeys((unit.parts_of or unit.grain, unit.offset) for unit in units if unit.offset))


def places_read(term: WrittenTerm) -> tuple[list[At], list[At]]:
    """Positions that a term reads of the network itself (or of its data), and of its teachers."""
    own: list[At] = []
    of_teachers: list[At] = []
    if isinstance(term, UnitLevels):
        for cell in term.cells("").values():
            for all_places, places in zip((own, of_teachers), places_read(cell), strict=True):
                all_places += places
        return own, of_teachers
    if isinstance(term, Levels):
        if not isinstance(term.align, Next):
            own.append(term.align.source)
            (own if term.target.teacher == "online" and term.teacher is None else of_teachers).append(term.align.target)
        return own, of_teachers
    (own if term.source.of == "network" else of_teachers).append(term.source.at)
    if isinstance(term, Predict):
        own += [] if term.distance_to is None else [term.distance_to]
        (own if term.predicted.teacher is None else of_teachers).extend(term.target.index_sets)
    return own, of_teachers
