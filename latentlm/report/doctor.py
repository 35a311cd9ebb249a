"""What is healthy in a run and what is not, in plain words, from what it has logged."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from rich.table import Column, Table

from latentlm.config.schema import ConfigError
from latentlm.monitor.verdicts import SLOW, VERDICTS, lasting
from latentlm.report.run_record import RunRecord, finite, read_runs, terms

NOTHING_ELSE = 1e4  # a gradient so many times the rest means that there is no rest
IGNORED = 1e-3  # a gradient that was never more than this share of the rest
COLLAPSED = "stop the gradient into the target (kind: ema, or stop_grad: true), add a spread term (sigreg), or the data"

MEANINGS = VERDICTS | {
    "collapsing": "the loss fell because the targets became alike, not because they are predicted",
    "ignored": "its gradient was always below a thousandth of everything else at its source",
    "flat": "the value has not moved",
    "empty": "no pair or sample ever existed, so nothing was asked",
    "learning-rate-0": "the learning rate was never above 0, so nothing was trained",
    "teacher-not-updating": "the slow copy keeps all of its weights (momentum 1), so it stays what it was",
    "student-not-moving": "the network is still where its slow copy began: nothing below the targets is trained",
    "collapsed-depth": "all inputs lie on one line there",
}
"""What each finding means."""

FIXES = {
    "not-finite": "lower training.learning_rate, keep training.max_grad_norm at 1, or set training.bf16=false",
    "constant-target": COLLAPSED,
    "low-rank-target": COLLAPSED,
    "target-constant-within-example": "read targets that differ within an image (an earlier depth, data), or "
    "take source and target from crops with other colours",
    "constant": "raise the weight of this term, or lower that of the terms that draw the latents together",
    "low-rank": "raise the weight of this term, or give it a wider head",
    "norm-blowup": "normalise the target (normalize: layer), read through norm: final, or lower the weight",
    "dead-head": "lower training.learning_rate, warm up, or give the predictor another seed or more width",
    "no-better-than-random-pairing": "check that source.at and target.at belong together, or train longer",
    "worse-than-constant": "train longer, raise the weight of this term, or check that source.at and target.at belong "
    "together",
    "one-class": f"balance the targets (assign: center or sinkhorn); {COLLAPSED}",
    "uniform": "sharpen the target (lower target_temperature) or give it more steps",
    "collapsing": COLLAPSED,
    "ignored": "raise its weight, or hold it at a share of the rest: weight: {grad_ratio: 0.1}",
    "flat": "check that its depth is trained and its weight above 0",
    "empty": "check the sets that source.at and target.at name, and the data's mask, views or spans",
    "learning-rate-0": "raise training.learning_rate, or make training.warmup_steps shorter than the run",
    "teacher-not-updating": "set momentum below 1, such as 0.99",
    "student-not-moving": "raise training.learning_rate, and train the blocks below the targets",
    "collapsed-depth": COLLAPSED,
}
"""What to try against each."""

LEGEND = """\
first, last: the loss. mean guess: the loss of the best guess that is the same for every input, the mean of the
targets. rank: of the guesses (or of the set) and of the targets. margin: how much nearer, by cosine, a guess is to its
own target than to a stranger's. gradient: its size at the source over that of everything else there; - where there is
nothing to compare or to measure."""


@dataclass(frozen=True)
class Finding:
    """Something that is not healthy.

    Attributes:
        place: term, ``run``, the slow copy, or a depth.
        verdict: its name, a key of `MEANINGS`.
        step: of the reading that shows it.
    """

    place: str
    verdict: str
    step: int


def meaning(verdict: str) -> str:
    """What a finding means; logs of another version may name one that is not known here."""
    return MEANINGS.get(verdict, "a verdict of another version of latentlm")


def fix(verdict: str) -> str:
    """What to try against it."""
    return FIXES.get(verdict, "the version that has written the log")


def read_run(path: Path) -> RunRecord:
    """A run folder that has logged something, finished or not."""
    if not (path / "metrics.jsonl").is_file():
        raise ConfigError(f"{path}: has no metrics.jsonl; name a run folder made by latentlm train")
    (run,) = read_runs([path])
    if "loss" not in run.curves:
        raise ConfigError(f"{path}: has logged nothing yet; look again after training.logging_steps steps")
    return run


def examine(run: RunRecord) -> list[Finding]:
    """All that is not healthy, as of the last reading of each kind."""
    of_terms = [finding for name in terms([run]) for finding in _term(run, name)]
    return [*_whole(run), *of_terms, *_teacher(run), *_top(run)]


def describe(run: RunRecord, findings: Sequence[Finding]) -> list[str]:
    """The verdict on the whole, every finding with its fix, and what could not be judged."""
    total = run.setting("training", "max_steps")
    planned = f" of {total}" if isinstance(total, int) and total > 0 else ""
    where = f"step {_step(run)}{planned}" + ("" if run.depth else ", not finished")
    lines = [f"{run.path}: {'not healthy' if findings else 'healthy'} ({where})"]
    lines += [f"  {problem}" for problem in run.problems]
    for name, step in dict.fromkeys((finding.verdict, finding.step) for finding in findings):
        places = ", ".join(finding.place for finding in findings if (finding.verdict, finding.step) == (name, step))
        lines.append(f"  {places}: {name} at step {step}: {meaning(name)}. Try: {fix(name)}.")
    unseen = [name for name in terms([run]) if name != "data" and f"monitor/{name}/verdict" not in run.words]
    if unseen:
        watch = "" if run.words else "; set objective.monitor_every to a number of steps"
        lines.append(f"  only the losses of these were watched: {', '.join(unseen)}{watch}")
    if run.depth:
        ranks = ", ".join(f"{rank:.3g}" for rank in run.depth["rank"])
        lines.append(f"  rank of the states over depth, of {run.depth['dim']}: {ranks}")
    return lines


def table(run: RunRecord, findings: Sequence[Finding]) -> Table:
    """One row for each term; cells of a ladder are called by their blocks, source_to_target."""
    head = ("term", "health", "first", "last", "mean guess", "rank", "target's", "margin", "gradient")
    columns = [Column(name, justify="left" if k < 2 else "right", no_wrap=k == 1) for k, name in enumerate(head)]
    view = Table(*columns, box=None)
    for name in terms([run]):
        wrong = [finding.verdict for finding in findings if finding.place == name]
        values = run.curves[f"{name}/value"]
        latest = [
            run.last(f"monitor/{name}/{key}")
            for key in ("baseline_loss", "rank", "target_rank", "cosine_margin", "grad_ratio")
        ]
        health = ", ".join(wrong) or ("off" if _is_off(run, name) else "ok")
        if latest[-1] is not None and latest[-1] > NOTHING_ELSE:
            latest[-1] = None
        view.add_row(name, health, *map(_number, (values[0][1], values[-1][1], *latest)))
    return view


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _step(run: RunRecord) -> int:
    return run.curves["loss"][-1][0]


def _whole(run: RunRecord) -> Iterator[Finding]:
    if broken := [step for step, value in run.curves["loss"] if not isfinite(value)]:
        yield Finding("run", "not-finite", broken[0])
    rates = run.curves.get("learning_rate", [])
    if len(rates) > 1 and max(rate for _, rate in rates) <= 0:
        yield Finding("run", "learning-rate-0", rates[-1][0])


def _term(run: RunRecord, name: str) -> Iterator[Finding]:
    values = run.curves[f"{name}/value"]
    if broken := [step for step, value in values if not isfinite(value)]:
        yield Finding(name, "not-finite", broken[0])
        return
    said = run.words.get(f"monitor/{name}/verdict", [])
    zero = all(value == 0 for _, value in values)
    if zero and not said:
        yield Finding(name, "empty", values[-1][0])
        return
    last = said[-1][1] if said else "ok"
    baseline, is_on = run.last(f"monitor/{name}/baseline_loss"), not _is_off(run, name)
    for verdict in lasting(last, _step(run), _monitor_every(run), is_on, values[-1][1], baseline):
        yield Finding(name, verdict, said[-1][0] if said else values[-1][0])
    if last == "ok" and _collapsing(run, name):
        yield Finding(name, "collapsing", said[-1][0])
    if zero or _is_off(run, name):
        return
    ratios = finite(run.curves.get(f"monitor/{name}/grad_ratio", []))
    if ratios and max(ratio for _, ratio in ratios) < IGNORED:
        yield Finding(name, "ignored", ratios[-1][0])
    if len(values) > 2 and max(v for _, v in values) - min(v for _, v in values) <= 1e-6 * abs(values[0][1]):
        yield Finding(name, "flat", values[-1][0])


def _monitor_every(run: RunRecord) -> int:
    every = run.setting("objective", "monitor_every")
    if isinstance(every, int):
        return every
    from latentlm.objective.objective import Objective  # brings torch, which the command line should not wait for

    return Objective.monitor_every


def _collapsing(run: RunRecord, name: str) -> bool:
    """Loss and the loss of a mean guess fell together, and so did the rank of the targets."""
    nothing = [value for _, value in finite(run.curves.get(f"monitor/{name}/baseline_loss", []))]
    ranks = [value for _, value in finite(run.curves.get(f"monitor/{name}/target_rank", []))]
    value = run.last(f"{name}/value") or 0.0
    below = bool(nothing) and value < nothing[0] and nothing[-1] < 0.2 * max(nothing)
    return below and bool(ranks) and ranks[-1] < 0.5 * max(ranks)


def _is_off(run: RunRecord, name: str) -> bool:
    """Whether its weight was 0 all along; a value of 0 says nothing of the weight."""
    value, weighted = (run.curves.get(f"{name}/{key}", []) for key in ("value", "weighted"))
    return bool(weighted) and any(v for _, v in value) and not any(w for _, w in weighted)


def _teacher(run: RunRecord) -> Iterator[Finding]:
    momenta = run.curves.get(f"monitor/{SLOW}/momentum", [])
    if momenta and min(value for _, value in momenta) >= 1:
        yield Finding(SLOW, "teacher-not-updating", momenta[-1][0])
    lags = run.curves.get(f"monitor/{SLOW}/lag", [])
    if lags and max(lag for _, lag in lags) == 0 and _step(run) > _monitor_every(run):
        yield Finding(SLOW, "student-not-moving", lags[-1][0])


def _top(run: RunRecord) -> Iterator[Finding]:
    """Of the top alone: further down a few huge coordinates, which pretrained language models have, hide all others."""
    if run.depth and not run.depth["rank"][-1] >= 2:
        yield Finding(f"depth {run.depth['depth'][-1]}", "collapsed-depth", _step(run))
