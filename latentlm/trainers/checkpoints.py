"""Checkpoints that a training can go on from: what each must hold, which is the newest whole one, which may go.

A checkpoint is whole when its last file is there, the list of all others with their sizes, and they are what it says.
"""

import json
import os
import re
import shutil
from pathlib import Path

from latentlm.whole_files import PARTIAL, to_disk, write_json

FILES = "checkpoint_files.json"
# what a training goes on from, and how the files are called that hold it, in all of transformers' ways to save
NEEDED = {
    "weights": r"(.*/)?(model|adapter_model|pytorch_model).*\.(safetensors|bin)|pytorch_model_fsdp.*|global_step.*",
    "optimizer": r"optimizer.*|global_step.*",
    "schedule": r"scheduler\.pt|global_step.*",
    "state": r"trainer_state\.json",
}


def seal(checkpoint: Path) -> None:
    """List the files of a checkpoint that has been written to its end, all of them down on the disk."""
    files = {path.relative_to(checkpoint).as_posix(): path for path in sorted(checkpoint.rglob("*")) if path.is_file()}
    files.pop(FILES, None)
    for path in files.values():
        to_disk(path)
    write_json(checkpoint / FILES, {"files": {name: path.stat().st_size for name, path in files.items()}})


def unseal(checkpoint: Path) -> None:
    """Take the list away, and a half one, before anything else in the checkpoint changes."""
    for path in (checkpoint / FILES, *checkpoint.glob(f".*{PARTIAL}")):
        path.unlink(missing_ok=True)


def problem(checkpoint: Path) -> str | None:
    """Why no training can go on from here; None where one can."""
    try:
        files = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))["files"]
        sizes = {str(name): int(size) for name, size in files.items()}
    except FileNotFoundError:
        return "it was not written to its end"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{FILES} cannot be read"
    for name, size in sizes.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, not {size}"
    for what, pattern in NEEDED.items():
        if not any(re.fullmatch(pattern, name) for name in sizes):
            return f"it holds no {what}"
    return None


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint's name says."""
    return int(checkpoint.name.rpartition("-")[2])


def checkpoints(folder: Path) -> list[Path]:
    """All that lie in a folder, the newest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and re.fullmatch(r"\w+-\d+", path.name)]
    return sorted(found, key=step_of, reverse=True)


def newest_whole(folder: Path) -> tuple[Path | None, dict[Path, str]]:
    """The newest checkpoint to go on from, and why not from the newer ones."""
    passed: dict[Path, str] = {}
    for checkpoint in checkpoints(folder):
        if (why := problem(checkpoint)) is None:
            return checkpoint, passed
        passed[checkpoint] = why
    return None, passed


def rotate(folder: Path, limit: int | None, best: str | None) -> None:
    """Delete all but the newest `limit` whole checkpoints and the best one; newer ones that are not whole stay."""
    if limit is None or limit <= 0:
        return
    whole = [path for path in checkpoints(folder) if problem(path) is None]
    kept = {path for path in whole[:1]} | {
        path for path in whole if best and os.path.abspath(path) == os.path.abspath(best)
    }
    kept |= set([path for path in whole if path not in kept][: max(0, limit - len(kept))])
    for checkpoint in checkpoints(folder):
        if kept and checkpoint not in kept and step_of(checkpoint) < max(map(step_of, kept)):
            unseal(checkpoint)
            shutil.rmtree(checkpoint, ignore_errors=True)
