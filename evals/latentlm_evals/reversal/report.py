"""What the report shows of this evaluation: the trained direction beside the reverse one, with every number."""

from collections.abc import Mapping, Sequence
from typing import Any

from latentlm.report.contract import (
    Cell,
    EvaluatedRun,
    Hint,
    Note,
    Part,
    Picture,
    Section,
    Table,
    between,
    percent,
    percent_cell,
)
from latentlm.report.figures.palette import INK, WIDTH, Figure, color, legend, plain, png
from latentlm.result import Task
from latentlm_evals.reversal.groups import ERRORS, LEARNED, Group, groups_of

Tasks = Mapping[Group, Task]
STAR = f"* same direction below {LEARNED:.0%}: not learned, so the reverse score does not count."
WITHOUT_QUESTIONS = ("images", "arithmetic")  # kinds of data that nobody can ask in both directions


def report_sections(runs: Sequence[EvaluatedRun]) -> list[Section]:
    """One section, and both directions in the overview."""
    tasks = [groups_of(run.result) if run.result is not None else {} for run in runs]
    parts: list[Part] = [
        Hint(f"{run.label} has no eval/reversal.json.", f"latentlm eval reversal {run.path}")
        for run, own in zip(runs, tasks, strict=True)
        if run.is_trained and not own and run.data_kind not in WITHOUT_QUESTIONS
    ]
    if any(tasks):
        parts.append(Picture("reversal", "Exact match with 95 % intervals", png(_figure(runs, tasks))))
        parts += _table(runs, tasks)
    shown = frozenset(group.key for own in tasks for group in own)
    return [Section("Reversal", parts, _headline(tasks), shown)]


def _headline(tasks: Sequence[Tasks]) -> dict[str, list[Cell]]:
    """Both directions pooled over all subsets: written answers, and questions with options."""
    columns: dict[str, list[Cell]] = {}
    for key, ending in (("exact", ""), ("acc", " (choice)")):
        if not any(task.has(key) for own in tasks for task in own.values()):
            continue
        same, reverse = ([_pooled(own, split, key) for own in tasks] for split in ("same", "reverse"))
        columns[f"same direction{ending}, %"] = [Cell(percent(value)) for value in same]
        columns[f"reverse{ending}, %"] = [
            Cell(percent(value), tail=_star([other])) if value is not None else Cell("-")
            for value, other in zip(reverse, same, strict=True)
        ]
    return columns


def _pooled(tasks: Tasks, split: str, key: str) -> float | None:
    """Share over all questions of a split: `acc` of questions with options, `exact` of all others."""
    part = [task for group, task in tasks.items() if group.split == split and task.has("acc") == (key == "acc")]
    questions = [task.n_samples.get("ranked" if key == "acc" else "original", 1) for task in part]
    return sum(task.value(key) * n for task, n in zip(part, questions, strict=True)) / sum(questions) if part else None


def _table(runs: Sequence[EvaluatedRun], tasks: Sequence[Tasks]) -> list[Part]:
    every = {group: task for own in tasks for group, task in own.items()}
    has_choice, has_four = (any(task.has(key) for own in tasks for task in own.values()) for key in ("acc", "mcq"))
    columns = {
        "subset": True,
        "asked": True,
        "run": True,
        "exact, %": True,
        "choice, % (chance)": has_choice,
        "contains, %": True,
        "of four, %": has_four,
        "MRR (chance)": True,
        "delta log p (p)": True,
        "questions / facts": True,
        "ranked x candidates": True,
    }
    rows = [
        [cell for cell, is_shown in zip(_row(run, own, group), columns.values(), strict=True) if is_shown]
        for group in sorted(every, key=lambda group: group.order)
        for run, own in zip(runs, tasks, strict=True)
        if group in own
    ]
    note = (
        "95 % intervals draw whole facts. MRR among the answers of the same pool, each candidate's mean removed; "
        "p: entities swap answers."
    )
    if has_choice:
        note += " Choice: questions with options are scored by the likeliest one, whatever the model writes."
    if has_four:
        note += " Of four: how often the right answer beats three others of its pool; chance is 25 %."
    has_star = any(cell.tail.endswith("*") for row in rows for cell in row)
    head = [name for name, is_shown in columns.items() if is_shown]
    return [Table(head, rows, 3), Note(note), *([Note(STAR)] if has_star else [])]


def _row(run: EvaluatedRun, tasks: Tasks, group: Group) -> list[Cell]:
    task, count = tasks[group], tasks[group].n_samples
    same = [
        other.value("acc") if other.has("acc") else other.value("exact")
        for key, other in tasks.items()
        if (key.subset, key.split) == (group.subset, "same")
    ]
    star = _star(same) if group.split == "reverse" else ""
    mrr, delta = (task.scores.get(name) for name in ("mrr", "delta_logp"))
    chance = f" ({task.value('mrr_chance'):.3f})" if task.has("mrr_chance") else ""
    pool = " + ".join(map(str, count.get("candidates", [])))
    choice_chance = f" ({percent(task.value('acc_chance'))})" if task.has("acc_chance") else ""
    p = f" ({task.value('delta_logp_p'):.3f})" if task.has("delta_logp_p") else ""
    return [
        Cell(group.subset),
        Cell(f"{group.split.replace('_', ' ')} > {group.answer_type}" + " (low is good)" * (group.split in ERRORS)),
        run.dot,
        percent_cell(task.scores["exact"], star * (not task.has("acc"))),
        percent_cell(task.scores.get("acc"), choice_chance + star * task.has("acc")),
        Cell(percent(task.value("contains"))),
        percent_cell(task.scores.get("mcq")),
        Cell(f"{mrr.value:.3f}", between(mrr, ".2f"), chance) if mrr else Cell("-"),
        Cell(f"{delta.value:+.2f}", between(delta, "+.2f"), p) if delta else Cell("-"),
        Cell(f"{count.get('original', '-')} / {count.get('facts', '-')}"),
        Cell(f"{count.get('ranked', '-')} x {pool}" if pool else "-"),
    ]


def _star(same: Sequence[float | None]) -> str:
    return "*" if any(value is not None and value < LEARNED for value in same) else ""


def _figure(runs: Sequence[EvaluatedRun], tasks: Sequence[Tasks]) -> Figure:
    """Exact match with intervals, trained and reverse direction; mistakes in a panel below."""
    from matplotlib import figure as mpl

    groups = sorted({group for own in tasks for group in own}, key=lambda group: group.order)
    panels = [
        [group for group in groups if group.split not in ERRORS],
        [group for group in groups if group.split in ERRORS],
    ]
    has_options = any(task.has("acc") for own in tasks for task in own.values())
    titles = ["Exact match, % (higher is better)", "Mistakes, % (lower is better)"]
    titles[0] += "; ◇: likeliest of the question's options" if has_options else ""
    shown = [(title, part) for title, part in zip(titles, panels, strict=True) if part]
    asked = {run.number: own for run, own in zip(runs, tasks, strict=True) if own}
    heights = [len(part) * (0.26 * len(asked) + 0.22) + 0.5 for _, part in shown]
    figure = mpl.Figure(figsize=(WIDTH, sum(heights) + 0.6), layout="constrained")
    axes = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, part) in zip(axes, shown, strict=True):
        axis.set_title(title)
        _bars(axis, part, asked)
    notes = {run.label: " (not measured)" for run, own in zip(runs, tasks, strict=True) if not own}
    legend(figure, [run.label for run in runs], patches=True, notes=notes)
    return figure


def _bars(axis: Any, groups: Sequence[Group], runs: Mapping[int, Tasks]) -> None:
    thick = 0.8 / len(runs)
    for row, group in enumerate(groups):
        for slot, (k, own) in enumerate(runs.items()):
            if group not in own:
                continue
            place = row + (slot - (len(runs) - 1) / 2) * thick
            score = own[group].scores["exact"].times(100.0)
            axis.barh(place, score.value, height=0.88 * thick, color=color(k))
            axis.plot(score.interval, [place, place], color=INK, linewidth=1.2, marker="|", markersize=5)
            said = f"{score.value:.1f}"
            if own[group].has("acc"):
                choice = 100 * own[group].value("acc")
                axis.plot(choice, place, "D", markersize=5, markerfacecolor="white", color=color(k), clip_on=False)
                said += f"  ◇ {choice:.1f}"
            axis.text(103, place, said, va="center", ha="left", fontsize=8.5)
        if row and group.subset != groups[row - 1].subset:
            axis.axhline(row - 0.5, color="#bbbbbb", linewidth=0.8)
    names = [plain(f"{group.subset}  {group.split.replace('_', ' ')} > {group.answer_type}") for group in groups]
    axis.set_yticks(range(len(groups)), names)
    axis.set_ylim(len(groups) - 0.5, -0.5)
    axis.set_xlim(0, 100)
    axis.set_xlabel("% of questions")
    axis.grid(axis="y", visible=False)
