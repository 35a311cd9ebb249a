"""Are two runs the same? Says "equal", or the first step and key at which they part.

    python -m latentlm.report.compare_runs A B [--tolerance 1e-4]        (run folders or metrics.jsonl files)

A value differs when |a - b| > tolerance * max(1, |a|, |b|); without a tolerance it must be the same to the last bit.
Times are left out. The exit code is 0 for equal runs, 1 for others.
"""

import argparse
import json
import math
import sys
from pathlib import Path

TIMES = ("runtime", "per_second")


def read(path: Path) -> dict[int | float, dict[str, float]]:
    """Step -> key -> number; lines without a step say something else."""
    file = path / "metrics.jsonl" if path.is_dir() else path
    if not file.is_file():
        sys.exit(f"compare: {path}: no metrics.jsonl there; name a run folder")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    found: dict[int | float, dict[str, float]] = {}
    for row in (row for row in rows if "step" in row):
        numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and not k.endswith(TIMES)}
        found.setdefault(numbers.pop("step"), {}).update(numbers)
    return found


def first_difference(a: dict[int | float, dict], b: dict[int | float, dict], tolerance: float = 0.0) -> str | None:
    """The first step and key at which two runs part, with both values; None where they are equal."""
    for step in sorted(a | b):
        for key in a.get(step, {}) | b.get(step, {}):
            ours, theirs = (run.get(step, {}).get(key) for run in (a, b))
            if not _same(ours, theirs, tolerance):
                return f"step {step}: {key} {_told(ours)} against {_told(theirs)}"
    return None


def _same(ours: float | None, theirs: float | None, tolerance: float) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    if math.isnan(ours) or math.isnan(theirs):
        return math.isnan(ours) and math.isnan(theirs)
    return ours == theirs or abs(ours - theirs) <= tolerance * max(1, abs(ours), abs(theirs)) < math.inf


def _told(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.8g}"


def main() -> int:
    """Compare two runs named on the command line."""
    parser = argparse.ArgumentParser(description="Are two runs the same?")
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN")
    parser.add_argument("--tolerance", type=float, default=0.0)
    given = parser.parse_args()
    a, b = map(read, given.runs)
    difference = first_difference(a, b, given.tolerance)
    print(difference or f"equal: {len(a)} steps, {len({key for row in a.values() for key in row})} keys")
    return 1 if difference else 0


if __name__ == "__main__":
    sys.exit(main())
