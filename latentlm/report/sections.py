"""The parts of the page; each takes all runs and returns HTML, or says what is missing and how to get it."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import yaml

from latentlm.report.plots import color
from latentlm.report.run_record import ERRORS, Run, Task, terms

LEARNED = 0.9  # a reverse score counts only where the trained direction reaches this
GOOD = ("ok", "false")  # monitor words that need no eye


def overview(runs: Sequence[Run]) -> str:
    """One row per run: how long it trained, the losses, and both directions."""
    if not any(run.is_trained or run.tasks for run in runs):
        return ""
    rows = []
    for run in runs:
        steps = max((curve[-1][0] for curve in run.curves.values()), default=0)
        cells = [str(steps) if run.is_trained else "-", number(run.last("loss")), number(run.last("eval_loss"))]
        for key in ("exact", "acc"):
            same, reverse = (_pooled(run.tasks, split, key) for split in ("same", "reverse"))
            cells += [_percent(same), _percent(reverse) + (_star([same]) if reverse is not None else "")]
        rows.append([titled(runs, run), *cells])
    head = ["run", "steps", "last loss (sum)", "last held-out loss", "same direction, %", "reverse, %"]
    head += ["same (choice), %", "reverse (choice), %"]
    if all(run.reads_images for run in runs):
        head, rows = head[:3], [row[:3] for row in rows]
    elif not any(_has(run, "acc") for run in runs):
        head, rows = head[:6], [row[:6] for row in rows]
    return table(head, rows) + _footnote(rows)


def warnings(runs: Sequence[Run]) -> str:
    """What every run's results say about themselves, whichever evaluation it was."""
    said = [(run, warning) for run in runs for warning in run.warnings]
    return "".join(f"<p class=missing>{titled(runs, run)}: {escape(warning)}</p>" for run, warning in said)


def recipes(runs: Sequence[Run]) -> str:
    """Objective of every run, and the keys in which recipes differ."""
    parts = [_missing(runs, "recipe.yaml", lambda run: run.recipe is None)]
    cards = []
    for run in runs:
        if run.recipe is None:
            continue
        block = run.recipe.get("objective", run.recipe)
        whole = escape(yaml.safe_dump(run.recipe, sort_keys=False))
        cards.append(
            f"<div class=card><h3>{titled(runs, run)}</h3><pre>{escape(yaml.safe_dump(block, sort_keys=False))}</pre>"
            f"<details><summary>whole recipe</summary><pre>{whole}</pre></details></div>"
        )
    if cards:
        parts.append(f"<div class=cards>{''.join(cards)}</div>")
    flat = [_flatten(run.recipe) for run in runs if run.recipe is not None]
    if len(flat) > 1:
        keys = sorted({key for recipe in flat for key in recipe if any(r.get(key) != recipe[key] for r in flat)})
        head = ["key", *(titled(runs, run) for run in runs if run.recipe is not None)]
        rows = [[f"<code>{escape(key)}</code>", *(_code(recipe, key) for recipe in flat)] for key in keys]
        parts.append("<h3>Where the recipes differ</h3>")
        parts.append(table(head, rows, left=len(head)) if rows else "<p>Nowhere: the recipes are equal.</p>")
    return "".join(parts)


def losses(runs: Sequence[Run], picture: str) -> str:
    """Curves of every term, and their last values."""
    if not any(run.is_trained for run in runs):
        return ""
    if not picture:
        return "<p class=missing>metrics.jsonl holds no losses.</p>"
    rows = [
        [escape(term), titled(runs, run), number(run.last(f"{term}/value")), number(run.last(f"{term}/weighted"))]
        for term in terms(runs)
        for run in runs
        if f"{term}/value" in run.curves
    ]
    return picture + (table(["term", "run", "last value", "as it enters the sum"], rows, left=2) if rows else "")


def reversal(runs: Sequence[Run], picture: str) -> str:
    """The trained direction beside the reverse one, with every number."""
    parts = [_missing(runs, "eval/reversal.json", lambda run: run.tasks is None and not run.reads_images), picture]
    choice, of_four = (any(_has(run, key) for run in runs) for key in ("acc", "mcq"))
    columns = {
        "subset": True,
        "asked": True,
        "run": True,
        "exact, %": True,
        "choice, % (chance)": choice,
        "contains, %": True,
        "of four, %": of_four,
        "MRR (chance)": True,
        "delta log p (p)": True,
        "items / facts": True,
        "ranked x candidates": True,
    }
    rows = []
    for key in sorted({task.key for run in runs for task in run.tasks or []}):
        for run in runs:
            for task in (task for task in run.tasks or [] if task.key == key):
                rows.append(_task_row(runs, run, task))
    if rows:
        note = (
            "95 % intervals draw whole facts. MRR among the answers of the same pool, each candidate's mean removed; "
            "p: entities swap answers."
        )
        if choice:
            note += " Choice: questions with options are scored by the likeliest one, whatever the model writes."
        if of_four:
            note += " Of four: how often the right answer beats three others of its pool; chance is 25 %."
        head = [name for name, is_shown in columns.items() if is_shown]
        rows = [[cell for cell, is_shown in zip(row, columns.values(), strict=True) if is_shown] for row in rows]
        parts.append(table(head, rows, left=3) + f"<p class=note>{note}</p>" + _footnote(rows))
    return "".join(parts)


def _task_row(runs: Sequence[Run], run: Run, task: Task) -> list[str]:
    score, count = task.scores, task.counts
    same = [
        other.scores.get("acc", other.scores["exact"])
        for other in run.tasks or []
        if (other.subset, other.split) == (task.subset, "same")
    ]
    star = _star(same) if task.split == "reverse" else ""
    choice = _with_interval(score, "acc") + (f" ({_percent(score['acc_chance'])})" if "acc_chance" in score else "")
    delta = f"{score['delta_logp']:+.2f}{_between(score, 'delta_logp', '+.2f')}" if "delta_logp" in score else "-"
    p = f" ({score['delta_logp_p']:.3f})" if "delta_logp_p" in score else ""
    mrr = f"{score['mrr']:.3f}{_between(score, 'mrr', '.2f')} ({score['mrr_chance']:.3f})" if "mrr" in score else "-"
    pool = " + ".join(map(str, count.get("candidates", [])))
    return [
        escape(task.subset),
        escape(task.asked + " (low is good)" * (task.split in ERRORS)),
        titled(runs, run),
        _with_interval(score, "exact") + star * ("acc" not in score),
        choice + star * ("acc" in score),
        _percent(score["contains"]),
        _with_interval(score, "mcq"),
        mrr,
        delta + p,
        f"{count.get('original', '-')} / {count.get('facts', '-')}",
        f"{count['ranked']} x {pool}" if pool else "-",
    ]


def depth(runs: Sequence[Run], picture: str) -> str:
    """Rank of the hidden states over depth."""
    parts = [_missing(runs, "depth.json", lambda run: run.depth is None), picture]
    profiles = [(run, run.depth) for run in runs if run.depth is not None]
    if profiles:
        places = sorted({place for _, profile in profiles for place in profile["depth"]})
        rows = []
        for run, profile in profiles:
            ranks = dict(zip(profile["depth"], profile["rank"], strict=True))
            rows.append([titled(runs, run), str(profile["dim"]), *(number(ranks.get(place)) for place in places)])
        parts.append(table(["run", "width", *(f"depth {place}" for place in places)], rows))
    return "".join(parts)


def monitors(runs: Sequence[Run]) -> str:
    """Latest statistics of every monitored term; a verdict keeps the first failure it ever named."""
    found = {key: None for run in runs for key in (*run.words, *run.curves) if key.startswith("monitor/")}
    if not any(run.is_trained for run in runs):
        return ""
    if not found:
        return "<p class=missing>No monitor was on: set <code>objective.monitor_every</code> to a number of steps.</p>"
    parts = [key.removeprefix("monitor/").rpartition("/")[::2] for key in found]
    names, kinds = sorted({name for name, _ in parts}), list(dict.fromkeys(kind for _, kind in parts))
    rows = []
    for name in names:
        for run in runs:
            cells = [_latest(run, f"monitor/{name}/{kind}") for kind in kinds]
            if any(cell != "-" for cell in cells):
                rows.append([escape(name), titled(runs, run), *cells])
    return table(["term", "run", *(escape(kind.replace("_", " ")) for kind in kinds)], rows, left=2)


def _latest(run: Run, key: str) -> str:
    if key in run.words:
        said = run.words[key]
        word = said[-1][1]
        bad = [(step, text) for step, text in said if text.lower() not in GOOD]
        first = f" ({escape(bad[0][1])} at step {bad[0][0]})" if bad else ""
        return f"<span class={'good' if word.lower() in GOOD else 'bad'}>{escape(word)}</span>{first}"
    value = run.last(key)
    return number(value) if value is None or math.isfinite(value) else f"<span class=bad>{value}</span>"


def origin(runs: Sequence[Run]) -> str:
    """Command, commit, date and versions of every run."""
    parts = [_missing(runs, "run.json", lambda run: run.facts is None)]
    flat = {run.label: _flatten(run.facts) for run in runs if run.facts is not None}
    keys = list(dict.fromkeys(key for facts in flat.values() for key in facts))
    if keys:
        head = ["", *(titled(runs, run) for run in runs if run.facts is not None)]
        rows = [[escape(key), *(_code(facts, key) for facts in flat.values())] for key in keys]
        parts.append(table(head, rows, left=len(head)))
    return "".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """HTML table of ready-made cells; the first `left` columns hold text, the others numbers."""
    style = [" class=text" if k < left else "" for k in range(len(head))]
    top = "".join(f"<th{s}>{cell}</th>" for s, cell in zip(style, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{s}>{c}</td>" for s, c in zip(style, row, strict=True)) + "</tr>" for row in rows
    )
    return f"<div class=scroll><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def number(value: float | int | None) -> str:
    """Four digits that mean something; a dash for nothing."""
    return "-" if value is None else f"{value:.4g}"


def titled(runs: Sequence[Run], run: Run) -> str:
    """Label of a run behind a dot of its colour."""
    return f'<span class=dot style="background:{color(runs.index(run))}"></span>{escape(run.label)}'


def _missing(runs: Sequence[Run], file: str, lacks: Any) -> str:
    lines = [
        f"<p class=missing>{escape(run.label)} has no {file}. Make it with <code>{escape(run.command(file))}</code></p>"
        for run in runs
        if run.is_trained and lacks(run)
    ]
    return "".join(lines)


def _has(run: Run, key: str) -> bool:
    return any(key in task.scores for task in run.tasks or [])


def _pooled(tasks: list[Task] | None, split: str, key: str) -> float | None:
    """Share over all items of a split: `acc` of questions with options, `exact` of all others."""
    part = [task for task in tasks or [] if task.split == split and ("acc" in task.scores) == (key == "acc")]
    items = [task.counts.get("ranked" if key == "acc" else "original", 1) for task in part]
    hits = sum(task.scores[key] * count for task, count in zip(part, items, strict=True))
    return hits / sum(items) if part else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _with_interval(score: Mapping[str, float], key: str) -> str:
    percent = {name: 100 * value for name, value in score.items()}
    return _percent(score.get(key)) + _between(percent, key, ".0f")


def _between(score: Mapping[str, float], key: str, digits: str) -> str:
    if not {key, f"{key}_low", f"{key}_high"} <= score.keys():
        return ""
    return f" <small>[{score[f'{key}_low']:{digits}}, {score[f'{key}_high']:{digits}}]</small>"


def _star(same: Sequence[float | None]) -> str:
    return "*" if any(value is not None and value < LEARNED for value in same) else ""


def _footnote(rows: Sequence[Sequence[str]]) -> str:
    if not any(cell.endswith("*") for row in rows for cell in row):
        return ""
    return f"<p class=note>* same direction below {LEARNED:.0%}: not learned, so the reverse score does not count.</p>"


def _flatten(tree: Any, path: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping) and tree:
        return {
            k: v for key, sub in tree.items() for k, v in _flatten(sub, f"{path}.{key}" if path else str(key)).items()
        }
    return {path: tree}


def _code(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "-"
    value = values[key]
    if isinstance(value, list):
        value = " ".join(map(str, value))
    return f"<code>{escape(str(value))}</code>"
