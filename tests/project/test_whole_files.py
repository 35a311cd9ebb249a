"""What is written is there whole or not at all, and a full disk is one line whoever was writing."""

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from latentlm.whole_files import is_empty, whole_file, whole_folder, write_json, write_text, writing


class KilledError(BaseException):
    pass


def killed_after(action):
    action()
    raise KilledError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "deep" / "file.txt"
    write_text(file, "old\n")
    with pytest.raises(KilledError), whole_file(file) as partial:
        killed_after(lambda: partial.write_text("ne"))
    assert file.read_text() == "old\n"
    write_text(file, "new\n")
    assert file.read_text() == "new\n"
    assert os.listdir(file.parent) == ["file.txt"]


@pytest.mark.parametrize("before", ["nothing", "empty", "older"])
def test_a_folder_appears_whole_or_not_at_all(before, tmp_path):
    folder = tmp_path / "folder"
    if before != "nothing":
        folder.mkdir()
    if before == "older":
        (folder / "old").write_text("old")
    there = sorted(tmp_path.rglob("*"))
    with pytest.raises(KilledError), whole_folder(folder) as partial:
        killed_after(lambda: (partial / "config.json").write_text("{}"))
    assert sorted(tmp_path.rglob("*")) == there
    (tmp_path / ".folder.partial").mkdir()  # what a kill has left
    (tmp_path / ".folder.partial" / "rest").write_text("x")
    with whole_folder(folder) as partial:
        (partial / "config.json").write_text("{}")
        assert not (folder / "config.json").exists()
    assert os.listdir(folder) == ["config.json"]
    assert is_empty(tmp_path / "none")
    assert not is_empty(folder)


def test_links_and_pipes_stay_what_they_are(tmp_path):
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    write_json(tmp_path / "link.json", {"a": 1})
    assert (tmp_path / "link.json").is_symlink()
    assert '"a": 1' in (tmp_path / "real.json").read_text()
    write_text(Path(os.devnull), "nothing")
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 26560 vs 26448"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        Exception("No space left on device (os error 28)"),  # tokenizers
    ],
    ids=lambda error: f"{type(error).__name__}: {error}"[:40],
)
def test_a_full_disk_is_one_line_that_names_the_file(error, tmp_path):
    with pytest.raises(OSError, match=r"model: could not be written \(.+\); free space") as told, writing("model"):
        raise error
    assert "\n" not in str(told.value)
    with pytest.raises(OSError, match="could not be written"), whole_folder(tmp_path / "out"):
        raise error
    assert not (tmp_path / "out").exists()


def test_other_errors_stay_what_they_are():
    for error in (RuntimeError("shapes differ"), FileNotFoundError(errno.ENOENT, "gone"), SafetensorError("header")):
        with pytest.raises(type(error)) as told, writing("model"):
            raise error
        assert told.value is error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_is_full_in_truth(tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="full: could not be written"):
        write_text(tmp_path / "full", "x" * 100000)
    with pytest.raises(OSError, match="could not be written"), writing("full"):
        torch.save({"a": torch.zeros(10000)}, tmp_path / "full")
