"""The headline study: does anything beside the code of the other span make a model say "B is A"?

    python scripts/study_reversal.py [FOLDER] [--arms next_token,reversal,...] [--seeds 0,1,2,3,4] [--workers 1]

Trains every arm with every seed (FOLDER/ARM/SEED; finished runs are left alone, so Ctrl-C loses nothing), asks all of
them the questions of `latentlm eval reversal`, and prints one row an arm: exact match in per cent, mean over seeds and
the smallest and largest seed. An arm is a recipe and overrides; nothing here knows what it does.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

# half the width of text/reversal's own network, so that a run takes four minutes of one core instead of eight
NETWORK = ["hidden_size=128", "intermediate_size=344", "initializer_range=0.04"]
COMMON = [*(f"model.config.{each}" for each in NETWORK), "optim.learning_rate=1.5e-3", "run.device=cpu"]
CODE = "objective.terms.names_other"
ARMS: dict[str, tuple[str, list[str]]] = {
    # controls
    "next_token": ("text/next_token", []),
    "next_token, weight decay .1": ("text/next_token", ["optim.weight_decay=0.1"]),
    "next_token, weight decay 1": ("text/next_token", ["optim.weight_decay=1.0"]),
    "heads, weight 0": ("text/reversal", [f"{CODE}.weight=0"]),
    "shuffled targets": ("text/reversal", [f"{CODE}.shuffle=true"]),
    # the claim
    "reversal": ("text/reversal", []),
    # one thing changed
    "depth 1/4": ("text/reversal", [f"{CODE}.source.depth=1/4"]),
    "depth 3/4": ("text/reversal", [f"{CODE}.source.depth=3/4"]),
    "depth 1": ("text/reversal", [f"{CODE}.source.depth=1"]),
    "mlp head": ("text/reversal", [f"{CODE}.predictor.kind=mlp"]),
    "unordered code": ("text/reversal", [f"{CODE}.target.ordered=false"]),
    "cosine": ("text/reversal", [f"{CODE}.loss.kind=cosine"]),
    "temperature .05": ("text/reversal", [f"{CODE}.loss.temperature=0.05"]),
    "temperature .2": ("text/reversal", [f"{CODE}.loss.temperature=0.2"]),
    "hidden state of the other": (
        "text/reversal",
        [f"{CODE}.target.kind=online", f"{CODE}.target.tap.depth=1/2", f"{CODE}.target.tap.at=other_end"],
    ),
    "read in place": ("text/reversal", ["batch.pairs.kind=given", "batch.pairs.read=in_place"]),
    "chunks nobody marked": ("text/reversal", ["batch.pairs.kind=chunks"]),
    "0 both ways": ("text/reversal", ["data.num_both=0"]),
    "50 both ways": ("text/reversal", ["data.num_both=50"]),
    "200 both ways": ("text/reversal", ["data.num_both=200"]),
    "5-token descriptions": ("text/reversal", ["data.description_length=5"]),
}


def run(arm: str, seed: int, folder: Path) -> None:
    """Train and ask one arm with one seed, if that has not been done."""
    recipe, overrides = ARMS[arm]
    place = folder / arm.replace(" ", "_").replace("/", "-").replace(",", "") / str(seed)
    place.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    train = ["train", recipe, *COMMON, *overrides, f"optim.seed={seed}", f"run.dir={place}", "run.resume=true"]
    commands = [] if (place / "model").is_dir() else [train]
    commands += [] if (place / "eval" / "reversal.json").is_file() else [["eval", "reversal", str(place)]]
    for command in commands:
        with open(f"{place}.log", "a", encoding="utf-8") as log:
            subprocess.run(
                [sys.executable, "-m", "latentlm", *command], env=environment, stdout=log, stderr=log, check=True
            )
    print(f"{arm}, seed {seed}: done", file=sys.stderr)


def scores(folder: Path, arm: str) -> dict[tuple[str, str], list[float]]:
    """Exact match of every seed, by split and what is asked."""
    found: dict[tuple[str, str], list[float]] = {}
    name = arm.replace(" ", "_").replace("/", "-").replace(",", "")
    for file in sorted(folder.glob(f"{name}/*/eval/reversal.json")):
        for task, row in json.loads(file.read_text(encoding="utf-8"))["results"].items():
            _, split, asks = task.rsplit("/", 2)
            found.setdefault((split, asks), []).append(100 * row["exact,none"])
    return found


def table(folder: Path) -> Table:
    """One row an arm that has been run."""
    view = Table(title="Exact match, %: mean over seeds (smallest - largest)")
    columns = [(split, asks) for split in ("same", "reverse") for asks in ("name", "description")]
    for name in ("arm", "seeds", *(f"{split} {asks}" for split, asks in columns)):
        view.add_column(name, justify="left" if name == "arm" else "right")
    for arm in ARMS:
        found = scores(folder, arm)
        if found:
            cells = [found.get(column, []) for column in columns]
            view.add_row(arm, str(max(map(len, cells))), *map(_cell, cells))
    return view


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ({min(values):.1f} - {max(values):.1f})" if len(values) > 1 else ""
    return f"{sum(values) / len(values):.1f}{spread}"


def main() -> None:
    """Run what is asked for, seed by seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/study_reversal"))
    parser.add_argument("--arms", default=";".join(ARMS), help="names separated by ; (default: all)")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, one thread each")
    asked = parser.parse_args()
    arms = [arm.strip() for arm in asked.arms.split(";")]
    if unknown := [arm for arm in arms if arm not in ARMS]:
        parser.error(f"--arms: no arm {unknown[0]!r}; known: {'; '.join(ARMS)}")
    with ThreadPoolExecutor(asked.workers) as pool:
        jobs = [pool.submit(run, arm, int(seed), asked.folder) for seed in asked.seeds.split(",") for arm in arms]
        for job in jobs:
            job.result()
    Console(width=120).print(table(asked.folder))


if __name__ == "__main__":
    main()
