"""What the report shows of this evaluation: depth by property, profiles over depth, and every null."""

from collections.abc import Mapping, Sequence

from latentlm.report.contract import (
    Cell,
    EvaluatedRun,
    Note,
    Part,
    Picture,
    Section,
    Table,
    number,
    percent,
    percent_cell,
)
from latentlm.report.figures.curves import Curve, panels_over_depth
from latentlm.report.figures.maps import Map, stacked_maps
from latentlm.report.figures.palette import png
from latentlm_evals.probing.task_names import CHOSEN, Profile, profiles, task_key

NOTE = (
    "Test inputs share neither entities nor templates with the training ones; intervals and bands are 95 % over "
    "entities. The best depth is chosen on the inputs it is scored on, so it flatters a little; beside it the "
    "accuracy at the depth that is best for the other folds. Dotted: the same network with fresh weights. Rings: "
    "best depth. k*: components for 95 % of the gain. Compression: uniform code / online code, and the same for "
    "control labels."
)


def report_sections(runs: Sequence[EvaluatedRun]) -> list[Section]:
    """One section with two pictures and a table."""
    found = [profiles(run.result) if run.result is not None else {} for run in runs]
    if not any(found):
        return []
    names = list(dict.fromkeys(name for own in found for name in own))
    parts: list[Part] = [
        Picture("probe", "Depth by property: what a linear probe reads off", _maps(runs, found)),
        Picture("profiles", "Accuracy of the probes over depth with 95 % bands", _profiles(runs, found, names)),
        _table(runs, found, names),
        Note(NOTE),
    ]
    shown = {
        task_key(profile.name, str(where))
        for own in found
        for profile in own.values()
        for where in (*profile.depths, CHOSEN)
    }
    return [Section("Probes", parts, shown=frozenset(shown))]


def _maps(runs: Sequence[EvaluatedRun], found: Sequence[Mapping[str, Profile]]) -> bytes:
    maps = []
    for run, own in zip(runs, found, strict=True):
        if own:
            depths = [list(profile.depths) for profile in own.values()]
            rings = [list(profile.depths).index(profile.best()) for profile in own.values()]
            maps.append(Map(run.label, list(own), list(map(str, depths[0])), [p.gain() for p in own.values()], rings))
    label = "accuracy: 0 = largest class, 1 = all"
    return png(stacked_maps(maps, label, column_title="depth (0 = input of the first block)"))


def _profiles(runs: Sequence[EvaluatedRun], found: Sequence[Mapping[str, Profile]], names: Sequence[str]) -> bytes:
    panels = {
        name: [_curve(run.number, own[name]) for run, own in zip(runs, found, strict=True) if name in own]
        for name in names
    }
    return png(panels_over_depth(panels, [run.label for run in runs], "accuracy, %"))


def _curve(run: int, profile: Profile) -> Curve:
    scores = {depth: task.scores["acc"] for depth, task in profile.depths.items()}
    floor = {depth: task.value("random_init") for depth, task in profile.depths.items() if task.has("random_init")}
    return Curve(run, scores, floor, next(iter(profile.depths.values())).value("chance"))


def _table(runs: Sequence[EvaluatedRun], found: Sequence[Mapping[str, Profile]], names: Sequence[str]) -> Table:
    rows = []
    for name in names:
        for run, own in zip(runs, found, strict=True):
            if name not in own:
                continue
            profile = own[name]
            best = profile.depths[profile.best()]
            shares = ("chance", "shuffled", "random_init", "selectivity", "mlp_gap")
            numbers = ("pca_k", "pls_k", "compression", "compression_control")
            rows.append(
                [
                    Cell(name),
                    run.dot,
                    Cell(str(profile.best())),
                    percent_cell(best.scores["acc"]),
                    percent_cell(profile.chosen.scores.get("acc")),
                    *(Cell(percent(best.value(key))) for key in shares),
                    *(Cell(number(best.value(key)) if best.has(key) else "-") for key in numbers),
                ]
            )
    head = ["property", "run", "best depth", "accuracy, %", "depth chosen by others", "largest class"]
    head += ["labels shuffled", "fresh weights", "selectivity", "MLP adds"]
    head += ["k* PCA", "k* PLS", "compression", "of control"]
    return Table(head, rows, 2)
