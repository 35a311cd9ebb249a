"""The run folder: whether a recipe may write there, where it goes on, and where the run came from."""

import dataclasses
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from latentlm.config.run_files import DEPTH, FACTS, LOCK, RECIPE, is_run
from latentlm.config.run_files import is_finished as went_to_its_end
from latentlm.config.schema import ConfigError, dump
from latentlm.experiment.recipe import Recipe, load_recipe, save_recipe
from latentlm.experiment.training import lasting
from latentlm.trainers.checkpoints import newest_whole, step_of
from latentlm.whole_files import PARTIAL, is_whole_json, read_json, write_json

PACKAGES = ("latentlm", "torch", "transformers", "accelerate", "peft", "trl", "datasets")


def check_folder(recipe: Recipe) -> Path:
    """The recipe's run folder; refuses to write over anything, or to continue with another recipe."""
    folder = recipe.output_dir
    if not is_first():
        return folder
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not above.is_dir():
        raise ConfigError(f"training.output_dir: {above} is a file; use another training.output_dir=PATH")
    if not os.access(above, os.W_OK):
        raise ConfigError(f"training.output_dir: cannot write to {above}; use another training.output_dir=PATH")
    if foreign := _foreign(folder):
        told = f"holds files that latentlm has not made ({', '.join(foreign[:3])}{', ...' * (len(foreign) > 3)})"
        raise ConfigError(f"training.output_dir: {folder} {told}; use another training.output_dir=PATH")
    if (folder / RECIPE).exists():
        if not recipe.training.get("resume_from_checkpoint"):
            told = "use training.resume_from_checkpoint=true or another training.output_dir=PATH"
            raise ConfigError(f"training.output_dir: {folder} already holds a run; {told}")
        before = load_recipe(folder / RECIPE)
        if difference := _difference(_lasting(before), _lasting(recipe)):
            told = f"{folder} was made with {difference}; use another training.output_dir=PATH"
            raise ConfigError(f"training.resume_from_checkpoint: {told}")
        whole, _ = newest_whole(folder / "checkpoints")
        done = step_of(whole) if whole else 0
        if 0 < (steps := recipe.training["max_steps"]) < done:
            raise ConfigError(f"training.max_steps: {steps}, but {folder} is at step {done}; set it higher")
    return folder


def _foreign(folder: Path) -> list[str]:
    """Names in a folder that no run has made; what a run is interrupted in leaves before its recipe is none."""
    if not folder.exists() or is_run(folder):
        return []
    ours = [path for path in folder.iterdir() if path.name in (FACTS, LOCK) or PARTIAL in path.name]
    ours += [path for path in folder.iterdir() if path.name == "checkpoints" and not any(path.iterdir())]
    return sorted(path.name for path in folder.iterdir() if path not in ours)


def is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether a run that is to be resumed has reached its end."""
    if not recipe.training.get("resume_from_checkpoint") or not went_to_its_end(folder):
        return False
    before = load_recipe(folder / RECIPE).training
    return all(before[key] == recipe.training[key] for key in ("max_steps", "num_train_epochs"))


def resume_point(folder: Path) -> tuple[str | None, list[str]]:
    """The checkpoint that a run continues from, and a line for everything that is there but not whole."""
    whole, passed = newest_whole(folder / "checkpoints")
    then = f"resuming from {whole.name}" if whole else "starting at step 0"
    lines = [f"{checkpoint} is not whole ({why}); {then}" for checkpoint, why in passed.items()]
    for name in (DEPTH, FACTS):
        if (folder / name).exists() and not is_whole_json(folder / name):
            lines.append(f"{folder / name} was cut short; making it again")
    return str(whole) if whole else None, lines


def open_folder(folder: Path, recipe: Recipe) -> None:
    """Make the folder, and write what is known before the first step; the last file of a finished run goes."""
    if not is_first():
        return
    for path in folder.glob(f".*{PARTIAL}"):  # of a run that was killed; nobody else writes here now
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / DEPTH).unlink(missing_ok=True)
    file, facts = folder / FACTS, _origin() | {"seconds": 0}
    if recipe.training.get("resume_from_checkpoint") and is_whole_json(file):
        before = {"commit": None, "seconds": 0} | read_json(file)
        commits = dict.fromkeys([*before.get("earlier_commits", []), before["commit"]])
        facts |= {
            "seconds": before["seconds"],
            "earlier_commits": [each for each in commits if each != facts["commit"]],
        }
    write_json(file, facts)
    training = {key: value for key, value in recipe.training.items() if key != "resume_from_checkpoint"}
    save_recipe(dataclasses.replace(recipe, training=training), folder / RECIPE)


def add_seconds(folder: Path, seconds: float) -> None:
    """Count the time of this part of the run."""
    facts = read_json(folder / FACTS)
    write_json(folder / FACTS, facts | {"seconds": round(facts["seconds"] + seconds, 1)})


def is_first() -> bool:
    """Whether this process writes; asked before a process group exists."""
    return os.environ.get("RANK", "0") == "0"


def _lasting(recipe: Recipe) -> dict[str, Any]:
    """What must stay when a run is resumed: all but where it runs and for how long."""
    return {**dump(recipe), "training": lasting(recipe.training, recipe.trainer)}


def _difference(before: Any, now: Any, path: str = "") -> str:
    """First key whose values differ."""
    if before == now:
        return ""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before | now:
            if found := _difference(before.get(key), now.get(key), f"{path}.{key}" if path else key):
                return found
    told = not isinstance(before, dict) and not isinstance(now, dict)
    return f"{path} {before!r}, not {now!r}" if told else f"another {path}"


def _origin() -> dict[str, Any]:
    program = Path(sys.argv[0]).name
    return {
        "command": shlex.join(["latentlm" if program == "__main__.py" else program, *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "commit": _commit(),
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads, {torch.cuda.device_count()} GPUs",
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "python": platform.python_version(),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):  # an extra that is not installed
            found[package] = version(package)
    return found


def _commit() -> str | None:
    """Of the checkout that is running; an installed package lies in somebody else's repository, if in any."""
    root = Path(__file__).parents[2]
    if not (root / "pyproject.toml").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=root, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
