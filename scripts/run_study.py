"""A study: arms times seeds, trained and evaluated, one table.

    python scripts/run_study.py recipes/studies/NAME.yaml [FOLDER] [--arms "one;two"] [--seeds 0,1,2] [--set "a=1;b=2"]

Trains every arm with every seed (FOLDER/ARM/SEED, by default runs/NAME; finished runs are left alone, so Ctrl-C loses
nothing), evaluates it, and prints one row an arm: mean over seeds (smallest - largest). An arm is a recipe
and overrides; nothing here knows what it does. The column CPU is what one training took, in seconds of one core.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console
from rich.table import Table

from latentlm.config.catalog import read_recipe
from latentlm.config.schema import ConfigError, parse


@dataclass(frozen=True)
class Column:
    """One number of an evaluation's results.

    Args:
        task: pattern of the task's name; of several that match, the mean is taken.
        score: its score.
        times: factor to show it with.
    """

    task: str
    score: str
    times: float = 100.0


@dataclass(frozen=True)
class Arm:
    """What is trained.

    Args:
        recipe: built-in name or file.
        set: overrides; {folder} and {seed} stand for the study's.
    """

    recipe: str
    set: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """What a study's file says.

    Args:
        evaluation: of `latentlm eval`.
        options: of that evaluation, as on the command line.
        columns: of the table.
        common: overrides of all arms.
        arms: by name.
    """

    evaluation: str
    columns: dict[str, Column]
    arms: dict[str, Arm]
    options: tuple[str, ...] = ()
    common: tuple[str, ...] = ()


def slug(arm: str) -> str:
    """Folder of an arm."""
    return arm.replace(" ", "_").replace("/", "-").replace(",", "")


def overrides(study: Study, arm: str, seed: int, folder: Path) -> list[str]:
    """What an arm changes in its recipe; other braces than those of {folder} and {seed} are YAML's own."""
    own = (*study.common, *study.arms[arm].set)
    return [each.replace("{folder}", str(folder)).replace("{seed}", str(seed)) for each in own]


def run(study: Study, arm: str, seed: int, folder: Path, more: list[str]) -> None:
    """Train and evaluate one arm with one seed, if that has not been done; `more` overrides come last."""
    place = folder / slug(arm) / str(seed)
    place.parent.mkdir(parents=True, exist_ok=True)
    own = overrides(study, arm, seed, folder)
    train = ["train", study.arms[arm].recipe, *own, *more, *_own(seed, place)]
    if not (place / "model").is_dir():
        with open(f"{place}.cpu", "a", encoding="utf-8") as file:
            print(latentlm(train, place), file=file)
    if not (place / "eval" / f"{study.evaluation}.json").is_file():
        latentlm(["eval", study.evaluation, str(place), *study.options], place)
    print(f"{arm}, seed {seed}: done", file=sys.stderr)


def _own(seed: int, place: Path) -> list[str]:
    return [f"training.seed={seed}", f"training.output_dir={place}", "training.resume_from_checkpoint=true"]


def latentlm(words: list[str], place: Path) -> float:
    """Run a command of latentlm on one thread, its output in a log beside the run; returns its CPU seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with open(f"{place}.log", "a", encoding="utf-8") as log:
        command = subprocess.Popen([sys.executable, "-m", "latentlm", *words], env=environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(command.pid, 0)
    if status:
        sys.exit(f"{place}: latentlm {words[0]} failed, see {place}.log")
    return round(usage.ru_utime + usage.ru_stime, 1)


def table(study: Study, folder: Path) -> Table:
    """One row an arm that has been run."""
    view = Table(title=f"{folder.name}: mean over seeds (smallest - largest)")
    rows = {}
    for arm in study.arms:
        place = folder / slug(arm)
        runs = [json.loads(file.read_text(encoding="utf-8"))["results"] for file in found(study, place)]
        if runs:
            cells = [[value for each in runs for value in read(column, each)] for column in study.columns.values()]
            spent = [sum(map(float, file.read_text().split())) for file in place.glob("*.cpu")]
            rows[arm] = [len(runs), *map(_cell, cells), f"{sum(spent) / len(spent):.0f}" if spent else "-"]
    names = ["seeds", *study.columns, "CPU"]
    # other data have other scores
    shown = [k for k in range(len(names)) if any(cells[k] != "-" for cells in rows.values())]
    view.add_column("arm")
    for k in shown:
        view.add_column(names[k], justify="right")
    for arm, cells in rows.items():
        view.add_row(arm, *[str(cells[k]) for k in shown])
    return view


def found(study: Study, place: Path) -> list[Path]:
    """Results of an arm, by seed."""
    return sorted(place.glob(f"*/eval/{study.evaluation}.json"))


def read(column: Column, results: dict[str, dict[str, float]]) -> list[float]:
    """The column's value in one result, or nothing where it has none."""
    key = f"{column.score},none"
    values = [scores[key] for task, scores in results.items() if fnmatch(task, column.task) and key in scores]
    return [column.times * sum(values) / len(values)] if values else []


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    digits = 1 if max(map(abs, values)) >= 10 else 3  # nats and bits differ behind the point
    spread = f" ({min(values):.{digits}f} - {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{sum(values) / len(values):.{digits}f}{spread}"


def main() -> None:
    """Run what is asked for, seed by seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--arms", help="names separated by ; (default: all)")
    parser.add_argument("--seeds", default="0,1,2", help="numbers separated by , (none: only the table)")
    parser.add_argument("--set", default="", help="overrides of all arms, separated by ;")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, one thread each")
    asked = parser.parse_intermixed_args()
    if not asked.study.is_file():
        parser.error(f"{asked.study}: no such file; the studies are recipes/studies/*.yaml")
    try:
        study = parse(Study, read_recipe(asked.study), str(asked.study))
    except ConfigError as error:
        parser.error(str(error))
    if asked.set and asked.folder is None:  # finished runs of other settings would pass for these
        parser.error("--set: name a FOLDER of its own for these runs, e.g. runs/other")
    folder = (asked.folder or Path("runs") / asked.study.stem).absolute()
    arms = list(study.arms) if asked.arms is None else [arm.strip() for arm in asked.arms.split(";")]
    if unknown := [arm for arm in arms if arm not in study.arms]:
        parser.error(f"--arms: no arm {unknown[0]!r}; known: {'; '.join(study.arms)}")
    with ThreadPoolExecutor(asked.workers) as pool:
        seeds = [int(seed) for seed in re.findall(r"\d+", asked.seeds)]
        more = [each.strip() for each in asked.set.split(";") if each.strip()]
        jobs = [pool.submit(run, study, arm, seed, folder, more) for seed in seeds for arm in arms]
        for job in jobs:
            job.result()
    Console(width=180).print(table(study, folder))


if __name__ == "__main__":
    main()
