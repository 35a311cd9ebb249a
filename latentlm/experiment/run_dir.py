"""The run folder: whether a recipe may write there, where it goes on, and where the run came from."""

import dataclasses
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open

from latentlm.config.schema import ConfigError, dump
from latentlm.experiment.recipe import Optim, Recipe, Run, load_recipe, save_recipe

PACKAGES = ("latentlm", "torch", "transformers", "accelerate", "peft", "trl", "datasets")


def check_folder(recipe: Recipe) -> Path:
    """The recipe's run folder; refuses to write over anything, or to go on with another recipe."""
    folder = Path(recipe.run.dir or "runs/run")
    if not is_first():
        return folder
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not above.is_dir():
        raise ConfigError(f"run.dir: {above} is a file; use another run.dir=PATH")
    if not os.access(above, os.W_OK):
        raise ConfigError(f"run.dir: cannot write to {above}; use another run.dir=PATH")
    if (folder / "recipe.yaml").exists():
        if not recipe.run.resume:
            raise ConfigError(f"run.dir: {folder} already holds a run; use run.resume=true or another run.dir=PATH")
        before = load_recipe(folder / "recipe.yaml")
        if difference := _difference(dump(_lasting(before)), dump(_lasting(recipe))):
            raise ConfigError(f"run.resume: {folder} was made with {difference}; use another run.dir=PATH")
        done = _step(Path(newest_checkpoint(folder) or "checkpoint-0"))
        if recipe.optim.steps is not None and recipe.optim.steps < done:
            raise ConfigError(f"optim.steps: {recipe.optim.steps}, but {folder} is at step {done}; set it higher")
    return folder


def is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether a run that is to be resumed has reached its end."""
    if not recipe.run.resume or not (folder / "depth.json").exists():
        return False
    before = load_recipe(folder / "recipe.yaml").optim
    return (before.steps, before.epochs) == (recipe.optim.steps, recipe.optim.epochs)


def newest_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end and is whole."""
    for checkpoint in sorted((folder / "checkpoints").glob("checkpoint-*"), key=_step, reverse=True):
        if _is_whole(checkpoint):
            return str(checkpoint)
    return None


def _is_whole(checkpoint: Path) -> bool:
    """Its state file, which comes last, is there, and no file was cut short: both formats say where they end."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        for file in checkpoint.glob("*.safetensors"):
            with safe_open(file, framework="pt"):
                pass
    except (OSError, ValueError, SafetensorError):  # the run was killed while it wrote, or the disk was full
        return False
    return all(is_zipfile(file) for file in checkpoint.glob("*.pt*"))


def open_folder(folder: Path, recipe: Recipe) -> None:
    """Make the folder, and write what is known before the first step; the last file of a finished run goes."""
    if not is_first():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "depth.json").unlink(missing_ok=True)
    save_recipe(dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, resume=False)), folder / "recipe.yaml")
    file, facts = folder / "run.json", _origin() | {"seconds": 0}
    if recipe.run.resume and file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        commits = dict.fromkeys([*before.get("earlier_commits", []), before["commit"]])
        facts |= {
            "seconds": before["seconds"],
            "earlier_commits": [each for each in commits if each != facts["commit"]],
        }
    write_json(file, facts)


def add_seconds(folder: Path, seconds: float) -> None:
    """Count the time of this part of the run."""
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    write_json(folder / "run.json", facts | {"seconds": round(facts["seconds"] + seconds, 1)})


def write_json(path: Path, data: dict) -> None:
    """Readable JSON."""
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def is_first() -> bool:
    """Whether this process writes; asked before a process group exists."""
    return os.environ.get("RANK", "0") == "0"


def _lasting(recipe: Recipe) -> Recipe:
    """What must stay when a run goes on: all but where it runs and for how long."""
    optim = dataclasses.replace(recipe.optim, steps=None, epochs=Optim.epochs)
    return dataclasses.replace(recipe, run=Run(), optim=optim)


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


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _origin() -> dict[str, Any]:
    program = Path(sys.argv[0]).name
    return {
        "command": shlex.join(["latentlm" if program == "__main__.py" else program, *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "commit": _commit(),
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads, {torch.cuda.device_count()} GPUs",
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
