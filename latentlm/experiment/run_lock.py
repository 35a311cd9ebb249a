"""One run folder, one writer: a lock that says who holds it, and that nobody need remove after a kill.

The lock itself is the operating system's, on the file ``run.lock``, and ends with its process, however that ends. Where
the folder's file system has no such locks, or another machine's are not seen, the file's own words count: host, process
and the time of the last sign of life, which is renewed while the run is going.
"""

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latentlm.config.schema import ConfigError

LOCK = "run.lock"
BEAT = 10.0  # seconds between signs of life
SILENT = 90.0  # seconds without one after which a writer on another machine is taken for dead

# by this process, to which its own locks are open: reading the file again would even give one back
_held: dict[Path, dict[str, object]] = {}
_threads = threading.Lock()  # to threads too, so that they look, take and give back one after the other


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a run folder, made if need be; ConfigError that names host and process where somebody else does.

    A folder that holds nothing else in the end goes again.
    """
    path = (folder / LOCK).resolve()
    with _threads:
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        number = _take(folder, path)
    done = threading.Event()
    beat = threading.Thread(target=_live, args=(number, done), daemon=True)
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join()
        with _threads:
            path.unlink(missing_ok=True)  # while it is still held: whoever waits for this file sees that it is gone
            del _held[path]
            os.close(number)
            _remove_empty(made)


def check_free(folder: Path) -> None:
    """ConfigError where somebody is writing to a run folder; nothing is written."""
    path = (folder / LOCK).resolve()
    with _threads:
        if path in _held:
            raise _refusal(folder, _held[path])
        if not path.is_file():
            return
        try:
            number = os.open(path, os.O_RDWR)
        except OSError:
            return
        try:
            _lock(folder, path, number)
        finally:
            os.close(number)


def _take(folder: Path, path: Path) -> int:
    while True:
        if path in _held:
            raise _refusal(folder, _held[path])
        folder.mkdir(parents=True, exist_ok=True)
        try:
            number = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            if folder.is_dir():
                raise
            continue  # its holder has gone, and taken the empty folder along
        try:
            _lock(folder, path, number)
            same = path.exists() and os.stat(path).st_ino == os.fstat(number).st_ino
        except BaseException:
            os.close(number)
            raise
        if same:
            _held[path] = _say(number)
            return number
        os.close(number)  # its holder has gone, and taken the file along


def _lock(folder: Path, path: Path, number: int) -> None:
    said = _said(path)
    try:
        fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise _refusal(folder, said) from None
        # the file system has no locks
        if said.get("host") == socket.gethostname() and _runs(said.get("process")):
            raise _refusal(folder, said) from None
    if said and said.get("host") != socket.gethostname() and time.time() - _beaten(path) < SILENT:
        raise _refusal(folder, said)


def _live(number: int, done: threading.Event) -> None:
    while not done.wait(BEAT):
        os.utime(number)


def _say(number: int) -> dict[str, object]:
    said = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M")}
    os.ftruncate(number, 0)
    os.pwrite(number, f"{json.dumps(said)}\n".encode(), 0)
    return said


def _said(path: Path) -> dict[str, object]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # gone meanwhile, or just being written
        return {}
    return said if isinstance(said, dict) else {}


def _beaten(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _runs(process: object) -> bool:
    if not isinstance(process, int) or process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _refusal(folder: Path, said: dict[str, object]) -> ConfigError:
    who = f"process {said['process']} on {said['host']}" if {"process", "host"} <= said.keys() else "another process"
    since = f" (since {said['since']})" if "since" in said else ""
    return ConfigError(
        f"training.output_dir: {who} is writing to {folder}{since}; "
        "wait for it, or use another training.output_dir=PATH"
    )


def _remove_empty(folders: list[Path]) -> None:
    for each in folders:
        try:
            each.rmdir()
        except OSError:
            return
