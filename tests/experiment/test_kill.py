"""A run killed without warning, again and again, ends where it would have ended, step by step."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentlm.experiment.recipe import load_recipe, save_recipe
from latentlm.experiment.run_dir import newest_checkpoint
from latentlm.experiment.train import train

KILLS = 20
SETTINGS = ["optim.steps=250", "run.save_every=3", "run.log_every=1", "run.device=cpu", "run.resume=true"]


def work(folder: str) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    train(load_recipe("smoke/text", [*SETTINGS, f"run.dir={folder}"]))


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


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path):
    for step, state in ((3, "{}"), (6, '{"global_step": 6'), (9, None)):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoints" / "checkpoint-3")


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"])
def test_a_file_cut_short_condemns_its_checkpoint(name, kept, tmp_path):
    for step in (3, 6):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        save_file({"weight": torch.arange(64.0)}, folder / "model.safetensors")
        for file in ("optimizer.pt", "rng_state.pth"):
            torch.save({"state": torch.arange(64.0)}, folder / file)
        (folder / "trainer_state.json").write_text('{"global_step": 6}')
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoints" / "checkpoint-6")
    damaged = tmp_path / "checkpoints" / "checkpoint-6" / name
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: int(len(whole) * kept)])
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoints" / "checkpoint-3")


def test_a_recipe_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "recipe.yaml"
    save_recipe(load_recipe("smoke/text"), file)
    before = file.read_text(encoding="utf-8")

    def killed(path, text, **more):
        path.open("w").close()  # opened, and nothing written
        raise OSError("killed")

    after = load_recipe("smoke/text", ["optim.steps=3"])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", killed)
        with pytest.raises(OSError, match="killed"):
            save_recipe(after, file)
    assert file.read_text(encoding="utf-8") == before
