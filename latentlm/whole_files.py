"""Files and folders that are there whole or not at all.

What is written goes to a temporary name beside its place, down to the disk, and is renamed: whoever is killed, or runs
out of disk, leaves what was there before. A disk that is full is told in one line, whichever library was writing.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = ".partial"  # ends the name of what is being written
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# safetensors, tokenizers and torch have no OSError for a full disk
SAID = ("No space left", "File too large", "Disk quota", "os error 28", "inline_container", "PytorchStreamWriter")


def write_json(path: Path, data: Any) -> None:
    """Readable JSON."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Bytes as they are."""
    with whole_file(path) as partial:
        partial.write_bytes(data)


def read_json(path: Path) -> Any:
    """What a file holds; ValueError that names it where it was cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"{path}: is cut short or not JSON ({error}); make it again") from None


def is_whole_json(path: Path) -> bool:
    """Whether a file is there and was not cut short."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the place of `path` when the block ends without an error."""
    path = path.resolve()  # a link stays one
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    with writing(path):
        if path.exists() and not path.is_file():  # a pipe or a device takes what it is given
            yield path
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            to_disk(partial)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        to_disk(path.parent)


@contextmanager
def whole_folder(path: Path, owner: bool = True) -> Iterator[Path]:
    """A temporary folder to fill, which takes the place of `path` when the block ends without an error.

    Args:
        path: does not exist, is empty, or is an older one that is replaced.
        owner: whether this process makes and renames the folder; of several that fill it one does.
    """
    path = path.resolve()
    inside = path.is_dir() and not _contents(path)  # somebody may be standing in it: it stays the same folder
    partial = path / PARTIAL if inside else path.with_name(f".{path.name}{PARTIAL}")
    with writing(path):
        if not owner:
            yield partial
            return
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            for file in partial.rglob("*"):
                to_disk(file)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if inside:
            # the configs say what a folder is, so they come last
            for file in sorted(partial.iterdir(), key=lambda file: file.name.endswith("config.json")):
                file.replace(path / file.name)
            partial.rmdir()
        else:
            _replace(path, partial)
        to_disk(path.parent)


@contextmanager
def writing(path: str | Path | None, then: str = "free space and run it again") -> Iterator[None]:
    """One line that names what could not be written because the disk is full; other errors stay what they are."""
    try:
        yield
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line), type(error).__name__)
        full = isinstance(error, OSError) and error.errno in FULL
        if "could not be written" in reason or not (full or any(word in str(error) for word in SAID)):
            raise
        raise OSError(f"{path}: could not be written ({reason[:150]}); {then}") from error


def is_empty(folder: Path) -> bool:
    """Whether nothing but leavings of an interrupted write is in a folder, if there is one."""
    return not folder.exists() or (folder.is_dir() and not _contents(folder))


def _contents(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.endswith(PARTIAL)]


def _replace(path: Path, partial: Path) -> None:
    older = path.with_name(f".{path.name}.older{PARTIAL}")
    shutil.rmtree(older, ignore_errors=True)
    if path.exists():
        path.rename(older)
    partial.rename(path)
    shutil.rmtree(older, ignore_errors=True)


def to_disk(path: Path) -> None:
    """Have a file's content, or a folder's names, survive a power cut; some file systems cannot, and need not."""
    try:
        number = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno in FULL:
            raise
    finally:
        os.close(number)
