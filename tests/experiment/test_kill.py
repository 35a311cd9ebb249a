"""A run killed without warning, anywhere and again and again, ends where it would have ended, step by step."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from run_cli import FEW, TINY
from safetensors.torch import load_file

from latentlm.config.run_files import is_finished
from latentlm.experiment.recipe import load_recipe
from latentlm.experiment.train import train

KILLS = 20
SETTINGS = [
    "training.max_steps=250",
    "training.save_steps=3",
    "training.logging_steps=1",
    "training.use_cpu=true",
    "training.resume_from_checkpoint=true",
]


def quiet() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def work(folder: str) -> None:
    quiet()
    train(load_recipe("smoke_text", [*SETTINGS, f"training.output_dir={folder}"]))


def start(folder: Path) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=work, args=(str(folder),))
    process.start()
    return process


def lines(folder: Path) -> list[dict]:
    file = folder / "metrics.jsonl"
    rows = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [json.loads(row) for row in rows if row.endswith("}")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_twenty_kills_change_nothing(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    whole = start(straight)
    whole.join()
    assert whole.exitcode == 0
    rng = random.Random(0)
    for _ in range(KILLS):
        before = len(lines(killed))
        process = start(killed)
        wanted = before + rng.randrange(6)
        while len(lines(killed)) < wanted and process.is_alive():
            time.sleep(0.005)
        time.sleep(rng.random() * 0.2)  # anywhere in a step or in the writing of a checkpoint
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it ended by itself: give it more steps"
    last = start(killed)
    last.join()
    assert last.exitcode == 0
    expected = {row["step"]: row for row in lines(straight)}
    assert sorted(expected) == sorted({row["step"] for row in lines(killed)})
    for row in lines(killed):
        assert row == expected[row["step"]]
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (straight, killed))
    assert one.keys() == other.keys()
    assert all(value.equal(other[name]) for name, value in one.items())


# what is renamed into its place last, in the order of a run, and what a kill there may cost
WRITES = ["run.json", "recipe.yaml", "metrics.jsonl", "checkpoint_files.json", "model", "depth.json"]
SHORT = [
    "smoke_text",
    FEW,
    TINY,
    "training.max_steps=5",
    "training.save_steps=2",
    "training.logging_steps=1",
    "training.use_cpu=true",
]


def killed_at(folder: str, wanted: str, after: bool, number: int) -> None:
    """Train, and die at the `number`-th time that the file or folder `wanted` takes its place, before or after it."""
    quiet()
    seen = 0

    def watch(event: str, args: tuple) -> None:
        nonlocal seen
        if event == "os.rename" and (not wanted or Path(args[1]).name == wanted):
            seen += 1
            if seen == number:
                if after:  # the event comes before the deed
                    os.rename(args[0], args[1])
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    train(load_recipe(SHORT[0], [*SHORT[1:], f"training.output_dir={folder}", "training.resume_from_checkpoint=true"]))


def forked(target, *args) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert forked(killed_at, str(folder), "nothing", False, 1) == 0
    return folder


def assert_same(folder: Path, straight: Path) -> None:
    assert lines(folder) == lines(straight)
    one, other = (load_file(run / "model" / "model.safetensors") for run in (straight, folder))
    assert one.keys() == other.keys()
    assert all(value.equal(other[name]) for name, value in one.items())
    assert (folder / "depth.json").read_text() == (straight / "depth.json").read_text()
    assert not [path for path in folder.rglob("*") if "partial" in path.name]


@pytest.mark.parametrize(
    "wanted", [pytest.param(name, marks=() if name == "model" else pytest.mark.slow) for name in WRITES]
)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_kill_at_any_write_costs_nothing(wanted, after, straight, tmp_path):
    folder = tmp_path / "run"
    number = 2 if wanted == "checkpoint_files.json" else 1  # the second: the first is still there
    if wanted == "metrics.jsonl":  # written anew where a run is resumed
        assert forked(killed_at, str(folder), "checkpoint_files.json", True, 1) == -signal.SIGKILL
    assert forked(killed_at, str(folder), wanted, after, number) == -signal.SIGKILL
    assert not is_finished(folder) or (wanted, after) == ("depth.json", True)
    assert forked(killed_at, str(folder), "nothing", False, 1) == 0
    assert_same(folder, straight)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_run_killed_at_its_first_write_then_its_second_and_so_on_arrives(straight, tmp_path):
    folder = tmp_path / "run"
    for number in range(1, 100):
        if (code := forked(killed_at, str(folder), "", False, number)) == 0:
            break
        assert code == -signal.SIGKILL
    assert number > 5
    assert_same(folder, straight)
