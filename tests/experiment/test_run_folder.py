"""A run folder after kills, cuts and mistakes: what is whole is used, what is not is named, what is foreign stays."""

import json
import shutil
import threading
from pathlib import Path

import pytest
from run_cli import FEW, TINY, latentlm
from safetensors.torch import load_file

from latentlm.config.schema import ConfigError
from latentlm.experiment.recipe import load_recipe
from latentlm.experiment.run_dir import check_folder, resume_point
from latentlm.experiment.run_lock import LOCK, check_free, only_writer
from latentlm.trainers.checkpoints import newest_whole

# 6 steps are a pass over the data: the last step is in the middle of one
SAME = [
    "smoke_text",
    FEW,
    TINY,
    "training.max_steps=5",
    "training.save_steps=2",
    "training.logging_steps=1",
    "training.use_cpu=true",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that went through."""
    run = tmp_path_factory.mktemp("finished") / "run"
    told = latentlm("train", *SAME, f"training.output_dir={run}")
    assert told.code == 0, told.err
    return run


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy of it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, "run")
    return Path("run")


def resume(*more):
    return latentlm("train", *SAME, "training.output_dir=run", "training.resume_from_checkpoint=true", *more)


def assert_same(run, other):
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (run, other))
    assert one.keys() == two.keys()
    assert all(weight.equal(two[name]) for name, weight in one.items())
    assert (run / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
    assert json.loads((run / "depth.json").read_text()) == json.loads((other / "depth.json").read_text())


def unfinish(run):
    (run / "depth.json").unlink()
    shutil.rmtree(run / "model")


def test_a_run_at_its_last_step_trains_no_more(run, finished):
    unfinish(run)
    told = resume()
    assert told.code == 0, told.err
    assert_same(run, finished)


def test_a_cut_mark_of_the_end_is_named_and_made_again(run, finished):
    for name in ("depth.json", "run.json"):
        (run / name).write_text((run / name).read_text()[:20])
    told = resume()
    assert told.code == 0
    assert "run/depth.json was cut short; making it again" in told.err
    assert "run/run.json was cut short; making it again" in told.err
    assert_same(run, finished)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "model.safetensors", "config.json", "rng_state.pth"])
@pytest.mark.parametrize("damage", ["gone", "empty"])
def test_a_checkpoint_that_lacks_a_file_is_passed_over(run, name, damage):
    file = run / "checkpoints" / "checkpoint-5" / name
    assert newest_whole(run / "checkpoints")[0] == file.parent
    file.unlink() if damage == "gone" else file.write_bytes(b"")
    checkpoint, (line,) = resume_point(run)
    assert checkpoint == "run/checkpoints/checkpoint-4"
    assert line.startswith(f"run/checkpoints/checkpoint-5 is not whole ({name} ")
    assert line.endswith("resuming from checkpoint-4")


def test_resuming_from_the_older_whole_checkpoint_ends_alike(run, finished):
    unfinish(run)
    (run / "checkpoints" / "checkpoint-5" / "optimizer.pt").unlink()
    told = resume()
    assert told.code == 0
    line = "run/checkpoints/checkpoint-5 is not whole (optimizer.pt is missing); resuming from checkpoint-4\n"
    assert told.err.count(line) == 1
    assert_same(run, finished)


def test_without_a_whole_checkpoint_a_run_starts_again_and_says_so(run, finished):
    unfinish(run)
    shutil.rmtree(run / "checkpoints" / "checkpoint-4")
    (run / "checkpoints" / "checkpoint-5" / "scheduler.pt").unlink()
    told = resume()
    assert told.code == 0
    assert "checkpoint-5 is not whole (scheduler.pt is missing); starting at step 0\n" in told.err
    assert_same(run, finished)


def test_a_longer_run_that_was_killed_has_no_model_to_show(run):
    (run / "depth.json").unlink()  # what a run that is given more steps begins with
    for told in (
        latentlm("eval", "reversal", "run"),
        latentlm("export", "run", "out"),
        latentlm("export", "run", "out", "--merge"),
    ):
        assert (told.code, told.err.count("\n")) == (2, 1)
        assert (
            "run: is not finished; finish it with: latentlm train run training.resume_from_checkpoint=true" in told.err
        )
        assert not Path("out").exists()
    assert latentlm("export", "run/model", "out").code == 0  # asked for by name it is there, without the run's numbers
    assert "| loss |" not in Path("out/README.md").read_text()
    assert latentlm("export", "run/checkpoints/checkpoint-4", "four").code == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    card = Path("four/README.md").read_text()
    assert f"| loss | {rows[3]['loss']:.6g} |" in card
    assert "those of step 4" in card


@pytest.mark.parametrize("more", [[], ["training.resume_from_checkpoint=true"]])
def test_a_folder_of_something_else_is_left_alone(more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine/checkpoints/checkpoint-5").mkdir(parents=True)
    Path("mine/checkpoints/checkpoint-5/precious").write_text("x")
    Path("mine/metrics.jsonl").write_text("mine\n")
    Path("mine/recipe.yaml").write_text("mine: 1\n")
    before = {path: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()}
    told = latentlm("train", *SAME, "training.output_dir=mine", *more)
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert (
        "training.output_dir: mine holds files that latentlm has not made (checkpoints, metrics.jsonl, recipe.yaml)"
        in told.err
    )
    assert {path: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()} == before
    assert latentlm("train", *SAME, "training.output_dir=/", *more).code == 2


def test_a_mistake_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = latentlm("train", "nitp", FEW, "model.name=./nowhere", "training.output_dir=deep/run")
    assert told.code == 2
    assert not Path("deep").exists()


@pytest.mark.slow
def test_a_run_is_written_by_one_process(run):
    """Another process holds the folder: refused with its name; after its end, however it ended, it is free again."""
    import multiprocessing

    fork = multiprocessing.get_context("spawn")
    ready, go = fork.Event(), fork.Event()
    other = fork.Process(target=hold, args=(str(run.resolve()), ready, go))
    other.start()
    assert ready.wait(300)
    told = resume("training.max_steps=6")
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert f"training.output_dir: process {other.pid} on " in told.err
    assert "is writing to run" in told.err
    other.kill()
    other.join()
    assert (run / LOCK).exists()  # nobody was left to take it away
    check_free(run)
    with only_writer(run):
        pass
    assert not (run / LOCK).exists()


def hold(folder, ready, go):
    with only_writer(Path(folder)):
        ready.set()
        go.wait(600)


def test_two_that_start_at_once_make_one_run(tmp_path):
    refused, entered = [], []
    barrier = threading.Barrier(4)

    def start():
        barrier.wait()
        try:
            with only_writer(tmp_path / "run"):
                entered.append(1)
                done.wait()
        except ConfigError as error:
            refused.append(str(error))

    done = threading.Event()
    threads = [threading.Thread(target=start, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    while sum(thread.is_alive() for thread in threads) > len(entered):  # who entered stays
        done.wait(0.01)
    done.set()
    for thread in threads:
        thread.join()
    assert (len(entered), len(refused)) == (1, 3)
    assert not (tmp_path / "run").exists()  # nothing else was put there


def test_a_lock_of_another_machine_counts_while_it_lives(tmp_path):
    import os
    import time

    (tmp_path / LOCK).write_text(json.dumps({"host": "elsewhere", "process": 7, "since": "today"}))
    with pytest.raises(ConfigError, match="process 7 on elsewhere is writing"):
        check_free(tmp_path)
    os.utime(tmp_path / LOCK, (time.time() - 1000,) * 2)
    check_free(tmp_path)


def test_a_half_result_is_named(run):
    (run / "eval").mkdir()
    (run / "eval" / "reversal.json").write_text('{"results": {"a": ')
    told = latentlm("export", "run", "out")
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert "run/eval/reversal.json: is cut short or not JSON" in told.err
    assert not Path("out").exists()


def test_what_a_kill_before_the_recipe_leaves_is_not_foreign(tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / ".run.json.7.partial").write_text("{")
    (folder / "run.json").write_text("{}")
    recipe = load_recipe("smoke_text", [f"training.output_dir={folder}"])
    assert check_folder(recipe) == folder
    (folder / "checkpoints" / "mine").write_text("x")
    with pytest.raises(ConfigError, match="has not made \\(checkpoints\\)"):
        check_folder(recipe)
