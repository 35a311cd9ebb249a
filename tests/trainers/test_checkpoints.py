"""Which checkpoints a training can go on from, and which may be deleted."""

import pytest
import torch
from safetensors.torch import save_file

from latentlm.trainers.checkpoints import FILES, checkpoints, newest_whole, problem, rotate, seal, unseal

WRITTEN = ("model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json", "config.json")


def checkpoint(folder, step, sealed=True):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    save_file({"weight": torch.arange(64.0)}, path / "model.safetensors")
    for name in WRITTEN[1:4]:
        torch.save({"state": torch.arange(64.0)}, path / name)
    for name in WRITTEN[4:]:
        (path / name).write_text('{"global_step": 6}')
    if sealed:
        seal(path)
    return path


@pytest.mark.parametrize("kept", [None, 0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", [*WRITTEN, FILES])
def test_a_file_cut_short_condemns_its_checkpoint(name, kept, tmp_path):
    older, newer = checkpoint(tmp_path, 3), checkpoint(tmp_path, 20)
    assert newest_whole(tmp_path) == (newer, {})
    data = (newer / name).read_bytes()
    (newer / name).unlink()
    if kept is not None:
        (newer / name).write_bytes(data[: int(len(data) * kept)])
    whole, passed = newest_whole(tmp_path)
    assert whole == older
    assert list(passed) == [newer]
    assert name == FILES or name in passed[newer]


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path):
    older, newer = checkpoint(tmp_path, 3), checkpoint(tmp_path, 6, sealed=False)
    assert newest_whole(tmp_path) == (older, {newer: "it was not written to its end"})


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"])
def test_a_checkpoint_saved_without_what_a_training_goes_on_from_is_none(name, tmp_path):
    path = checkpoint(tmp_path, 3, sealed=False)
    (path / name).unlink()
    seal(path)
    assert "it holds no " in str(problem(path))


@pytest.mark.parametrize(
    "files",
    [
        ["pytorch_model_fsdp_0/__0_0.distcp", "optimizer_0/__0_0.distcp", "scheduler.pt"],
        ["pytorch_model_fsdp.bin", "optimizer.bin", "scheduler.pt"],
        ["global_step8/mp_rank_00_model_states.pt", "latest"],
        ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt"],
        ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "optimizer.pt", "scheduler.pt"],
    ],
    ids=lambda files: files[0].split("/")[0],
)
def test_what_engines_save_is_whole_too(files, tmp_path):
    path = tmp_path / "checkpoint-8"
    for name in [*files, "trainer_state.json"]:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("{}")
    seal(path)
    assert problem(path) is None


def test_only_what_is_older_than_enough_whole_ones_goes(tmp_path):
    for step in (2, 4, 6, 8):
        checkpoint(tmp_path, step)
    torn = checkpoint(tmp_path, 10, sealed=False)
    rotate(tmp_path, None, None)
    assert len(checkpoints(tmp_path)) == 5
    rotate(tmp_path, 2, None)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-8", "checkpoint-6"]
    assert torn.exists()  # it is written over when its step comes again
    checkpoint(tmp_path, 12)
    rotate(tmp_path, 1, str(tmp_path / "checkpoint-6"))
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-12", "checkpoint-6"]


def test_what_a_kill_left_of_the_list_is_no_part_of_the_next_one(tmp_path):
    path = checkpoint(tmp_path, 3, sealed=False)
    (path / f".{FILES}.123.partial").write_text("{")
    unseal(path)
    seal(path)
    assert problem(path) is None
    assert not list(path.glob(".*"))
