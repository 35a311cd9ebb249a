"""Verdicts in plain words on the statistics of one term."""

from math import isfinite

SLOW = "slow copy"  # the teacher's name in the logs: no term can have it
VERDICTS = {
    "not-finite": "there are infinite values or none at all",
    "constant-target": "the targets have no spread left, so a small loss means nothing",
    "low-rank-target": "the targets live in very few directions",
    "target-constant-within-example": "the targets hardly differ within one image or document",
    "constant": "the latents have no spread left: every input gives the same",
    "low-rank": "the latents live in very few directions",
    "norm-blowup": "coordinates have grown beyond 1e4",
    "dead-head": "the guess is the same for every input",
    "no-better-than-random-pairing": "guesses (or views) are no nearer to their own target than to a stranger's",
    "worse-than-constant": "guessing the mean of the targets, whatever the input, has a smaller loss than this term",
    "one-class": "all guesses name one and the same class",
    "uniform": "no guess names any class",
}
"""What each verdict means."""

LEARNED = 0.1  # margin of the cosine that a term which has learned its pairs has; few pairs do not rule it out
EARLY = ("no-better-than-random-pairing", "worse-than-constant")  # at first nothing is learned: no failure yet


def lasting(
    verdict: str, step: int, monitor_every: int, is_on: bool, value: float, baseline_loss: float | None
) -> list[str]:
    """The failures that a term ends with; the one rule of the doctor and of a run's last line.

    Args:
        verdict: the latest, names joined by commas, or ``ok``.
        step: of the last log line. Lines repeat a reading until there is a new one, every `monitor_every` steps.
        monitor_every: of the objective.
        is_on: whether the term has ever had a weight; one that is still off has nothing to learn.
        value: of the term's loss.
        baseline_loss: of the best guess that is the same for every input; None where there is none.
    """
    names = [name for name in verdict.split(", ") if name != "ok"]
    if not names and baseline_loss is not None and isfinite(baseline_loss) and value > 1.1 * baseline_loss + 1e-6:
        names = ["worse-than-constant"]
    return [name for name in names if is_on and (name not in EARLY or step > monitor_every)]


def verdicts(values: dict[str, float], dim: int) -> list[str]:
    """Names of the failures, see `VERDICTS`, that `pair_health`, `set_health` and, for logits, `class_health` show."""
    if not all(isfinite(value) for value in values.values()):
        return ["not-finite"]
    found = []
    of, tail = ("target_", "-target") if "target_norm" in values else ("", "")
    flat = _flat(values[f"{of}std"], values[f"{of}norm"], dim)
    if flat:
        found.append(f"constant{tail}")
    elif values[f"{of}rank"] < 2.0 and dim > 2:
        found.append(f"low-rank{tail}")
    if values.get(f"{of}between_example_share", 0.0) > 0.95 and not flat:
        found.append("target-constant-within-example" if of else "constant-within-example")
    if values[f"{of}norm"] > 1e4 * dim**0.5:
        found.append("norm-blowup")
    dead = bool(of) and not flat and _flat(values["std"], values["norm"], dim)
    if dead:
        found.append("dead-head")
    margin, error = values.get("cosine_margin", 1.0), values.get("cosine_margin_stderr", 0.0)
    if margin < 0.01 and margin + 2 * error < LEARNED and not flat and not dead:
        found.append("no-better-than-random-pairing")
    if values.get("classes", dim) < 1.05:
        found.append("one-class")
    if values.get("entropy", 0.0) > 0.999:
        found.append("uniform")
    return found


def _flat(std: float, norm: float, dim: int) -> bool:
    return std < 1e-3 * max(norm, 1e-12) / dim**0.5 or norm < 1e-6
