"""Names asked for by description: rates by the form of the question, and what a model has over the first one named.

    latentlm eval reversal RUN samples=RUN/samples.jsonl
    python -m latentlm_evals.reversal.question_forms RUN/samples.jsonl OTHER/samples.jsonl [--task TASK]

A question says the description as it was told, or says it in other words, or ends in "that's". Only samples of
``name_description`` have these forms. Rates and differences in per cent, with 95 % intervals over people; a difference
is taken question by question, so both files must hold the same questions.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NoReturn

import torch
from rich.console import Console
from rich.table import Table

from latentlm_evals.statistics.bootstrap import bounded_mean, open_mean

TASK = "reversal/name_to_description/reverse/name"
FORMS = ("as told", "other words", '... "that\'s"')


def form(row: dict) -> str:
    """Which of FORMS a question has, by the description in its fact."""
    description = row["fact"].partition(" | ")[2].rstrip(' .,"?!').lower()
    if row["prompt"].rstrip().endswith("that's"):
        return FORMS[2]
    return FORMS[0] if description in row["prompt"].lower() else FORMS[1]


def refuse(line: str) -> NoReturn:
    """One line and exit code 2, as of the command line."""
    print(f"question_forms: {line}", file=sys.stderr)
    sys.exit(2)


def read(path: Path, task: str) -> dict[str, dict]:
    """Question -> its line."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found = {line["prompt"]: line for line in lines if line["task"] == task}
    except (OSError, ValueError, KeyError, TypeError) as error:
        refuse(f"{path}: {error}; give a file of latentlm eval reversal RUN samples=FILE")
    if not found or any(" | " not in row["fact"] for row in found.values()):
        refuse(f"{path}: no questions of {task} about a name and a description")
    return found


def rate(rows: list[dict]) -> str:
    """Right of asked, and per cent with its interval."""
    if not rows:
        return "-"
    hits = torch.tensor([row["exact"] for row in rows], dtype=torch.float64)
    share = bounded_mean(hits, [row["fact"] for row in rows]).times(100.0)
    return f"{int(hits.sum())} of {len(rows)}: {share.value:.1f} [{share.low:.0f}, {share.high:.0f}]"


def difference(rows: list[dict], first: dict[str, dict]) -> str:
    """Points above the first file on the same questions, with its interval where people differ."""
    if not rows:
        return "-"
    gains = torch.tensor([row["exact"] - first[row["prompt"]]["exact"] for row in rows], dtype=torch.float64)
    gain = open_mean(gains, [row["fact"] for row in rows]).times(100.0)
    interval = "" if gain.interval is None else f" [{gain.low:+.0f}, {gain.high:+.0f}]"
    return f"{gain.value:+.1f}{interval}"


def main() -> None:
    """Print one row a file, and one a difference."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("samples", nargs="+", type=Path, metavar="SAMPLES")
    parser.add_argument("--task", default=TASK)
    given = parser.parse_args()
    files = {str(path): read(path, given.task) for path in given.samples}
    first, *others = files
    table = Table("samples", "all", *FORMS, title=f"{given.task}: exact match, % [95 % over people]")
    kinds = (None, *FORMS)
    for name, found in files.items():
        table.add_row(name, *(rate([r for r in found.values() if kind in (None, form(r))]) for kind in kinds))
    for name in others:
        if files[name].keys() != files[first].keys():
            refuse(f"{name} and {first} hold other questions; score both with the same options")
        rows = list(files[name].values())
        gains = (difference([r for r in rows if kind in (None, form(r))], files[first]) for kind in kinds)
        table.add_row(f"{name} - {first}", *gains)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
