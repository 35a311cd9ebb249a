"""Folders of image files: every layout, splits, and what cannot be read."""

import io
import logging
import os
import pickle
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from latentlm.data.images import ImageFolder, Images, Random, Views
from latentlm.data.images.dataset import source_of
from latentlm.data.images.folder import SHARE, SUFFIXES
from latentlm.data.images.sources import held
from latentlm.data.images.stored import Names


def write(path, value=0, size=(20, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def names(stored):
    return [stored.called(int(i)) for i in stored.index]


def classes(root, split="train", **more):
    """Class of each file."""
    stored = ImageFolder(str(root), **more).stored(split)
    labels = [None] * len(stored) if stored.labels is None else [stored.classes[i] for i in stored.labels]
    return dict(zip(names(stored), labels, strict=True))


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (["cat/1.png", "dog/2.png"], {"cat/1.png": "cat", "dog/2.png": "dog"}),
        (["cat/1.png"], {"cat/1.png": "cat"}),  # one class
        (["1.png", "2.png"], {"1.png": None, "2.png": None}),  # none
        (
            ["cat/a/b/1.png", "cat/2.png", "dog/c/3.PNG"],
            {"cat/2.png": "cat", "cat/a/b/1.png": "cat", "dog/c/3.PNG": "dog"},
        ),
        (["cat/1.png", "test/2.png", "val/3.png"], {"cat/1.png": "cat", "test/2.png": "test", "val/3.png": "val"}),
        (["train/1.png", "plane/2.png"], {"train/1.png": "train", "plane/2.png": "plane"}),  # a vehicle
        (["train/cat/1.png", "test/cat/2.png"], {"train/cat/1.png": "cat"}),
        (["train/cat/1.png", "val/cat/2.png"], {"train/cat/1.png": "cat"}),
        (["train/1.png", "test/2.png"], {"train/1.png": None}),
        (["cat/1.png", ".hidden/2.png", "dog/.x.png", "empty/none.txt"], {"cat/1.png": "cat"}),
    ],
)
def test_layouts(tmp_path, files, wanted):
    for name in files:
        write(tmp_path / name) if name.lower().endswith("png") else (tmp_path / name).parent.mkdir()
    assert classes(tmp_path) == wanted


def test_links_are_followed_and_loops_end(tmp_path):
    write(tmp_path / "far" / "1.png")
    write(tmp_path / "set" / "dog" / "2.png")
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "far")
    (tmp_path / "set" / "dog" / "again").symlink_to(tmp_path / "set" / "dog")
    (tmp_path / "set" / "dog" / "3.png").symlink_to(tmp_path / "far" / "1.png")
    assert classes(tmp_path / "set") == {"cat/1.png": "cat", "dog/2.png": "dog", "dog/3.png": "dog"}


def test_folders_of_splits_have_the_same_numbers_of_classes(tmp_path):
    for name in ("train/cat/1.png", "train/dog/2.png", "test/dog/3.png", "extra/dog/4.png"):
        write(tmp_path / name)
    with_extra = {"train": "train", "test": "test"}
    assert classes(tmp_path, "test", **with_extra) == {"test/dog/3.png": "dog"}
    assert ImageFolder(str(tmp_path), **with_extra).stored("test").labels.tolist() == [1]
    assert set(classes(tmp_path)) == set(classes(tmp_path, train=None)) >= {"train/cat/1.png", "extra/dog/4.png"}
    write(tmp_path / "test" / "emu" / "5.png")
    with pytest.raises(ValueError, match=r"^source.test: .* are not among those to train on: emu"):
        ImageFolder(str(tmp_path), **with_extra).stored("test")


def test_images_are_set_aside_by_class_and_stay_where_they_are_when_others_come(tmp_path):
    for label, num in (("cat", 20), ("dog", 10), ("emu", 2)):
        for i in range(num):
            write(tmp_path / label / f"{i}.png")
    folder = ImageFolder(str(tmp_path), test=0.2)
    train, test = folder.stored("train"), folder.stored("test")
    assert np.bincount(test.labels).tolist() == [4, 2, 1]
    assert np.bincount(train.labels).tolist() == [16, 8, 1]
    assert not set(names(train)) & set(names(test))
    write(tmp_path / "ant" / "1.png")
    write(tmp_path / "ant" / "2.png")
    assert set(names(folder.stored("test"))) >= set(names(test))
    every = ImageFolder(str(tmp_path))  # nothing is set aside unless an evaluation has to
    assert len(every.stored("train")) == 34
    assert set(names(every.stored("test", SHARE))) == set(names(folder.stored("test")))
    with pytest.raises(ValueError, match=r"give a share, such as test=0\.2"):
        every.stored("test")


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"path": "none"}, r"^source.path: there is no folder none"),
        ({"test": "val"}, r"^source.test: there is no folder val in .*; it has cat"),
        ({"train": "all"}, r"^source.train: there is no folder all"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(tmp_path, more, line):
    write(tmp_path / "cat" / "1.png")
    with pytest.raises(ValueError, match=line):
        ImageFolder(**({"path": str(tmp_path)} | more)).stored("train")
    with pytest.raises(ValueError, match=r"^test: 1.5 is a share"):
        ImageFolder("x", test=1.5)


def test_a_folder_without_images_says_what_it_has(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.heic").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"has no images, but files that end in \.heic; images end in \.jpg"):
        ImageFolder(str(tmp_path)).stored("train")
    assert ".jpeg" in SUFFIXES


def test_images_outside_of_all_classes_are_counted(tmp_path, caplog):
    write(tmp_path / "cat" / "1.png")
    write(tmp_path / "2.png")
    with caplog.at_level(logging.WARNING):
        assert classes(tmp_path) == {"cat/1.png": "cat"}
    assert "1 images directly in" in caplog.text


def test_a_path_is_a_folder_or_a_table(tmp_path):
    write(tmp_path / "photos" / "1.png")
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "0.parquet").write_bytes(b"")
    kinds = {str(tmp_path / "photos"): "ImageFolder", str(tmp_path / "table"): "HfDataset", "./none": "ImageFolder"}
    kinds |= {"./x.parquet": "HfDataset", "a/b": "HfDataset"}
    assert {path: type(source_of(path)).__name__ for path in kinds} == kinds


def test_names_are_kept_in_one_block():
    given = ["a", "", "ä/ö.png", "x" * 300, os.fsdecode(b"\xff.png")]
    kept = pickle.loads(pickle.dumps(Names(given)))
    assert list(kept) == given
    assert list(kept[1:3]) == given[1:3]
    assert len(kept) == 5


@pytest.fixture
def damaged(tmp_path):
    """Thirty images, three of which are no images; every image has its own grey."""
    for i in range(30):
        write(tmp_path / "set" / "ab"[i % 2] / f"{i:02}.png", value=8 * i)
    for i in (4, 6, 29):
        (tmp_path / "set" / "ab"[i % 2] / f"{i:02}.png").write_bytes(b"" if i == 4 else b"\x89PNG no")
    return tmp_path / "set"


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_files_are_replaced_counted_and_named_once(damaged, caplog, workers):
    part = Images(ImageFolder(str(damaged)), Views(2, (0.5, 1.0)), Random(0.5))
    dataset, collate = part.dataset(), part.collator(8, 2, 3, ("visible",))
    loader = DataLoader(dataset, 10, collate_fn=collate, num_workers=workers)
    greys = []
    for _ in range(2):
        batches = list(loader)
        assert [batch["pixel_values"].shape[0] for batch in batches] == [20] * 3
        greys.append([((value.mean().item() + 1) * 127.5) for b in batches for value in b["pixel_values"][::2]])
    wanted = [8 * i for c in (0, 1) for i in range(c, 30, 2)]
    wanted[2] = wanted[3] = 8 * 8  # the next that can be read stands in
    wanted[29] = 0
    assert np.allclose(greys, [wanted, wanted], atol=1)
    with caplog.at_level(logging.WARNING):
        dataset.tell_unreadable()
        dataset.tell_unreadable()
    assert caplog.text.count("3 of 30 images") == 1
    assert all(name in caplog.text for name in ("a/04.png", "a/06.png", "b/29.png"))


def test_an_evaluation_leaves_damaged_files_out(damaged, caplog):
    with caplog.at_level(logging.WARNING):
        found = held(ImageFolder(str(damaged)).stored("train"), 8, "L")
    assert found.images.shape == (27, 1, 8, 8)
    assert found.labels["label"].tolist() == [0] * 13 + [1] * 14
    assert "3 of 30 images" in caplog.text
    for path in damaged.rglob("*.png"):
        path.write_bytes(b"nothing")
    stored = ImageFolder(str(damaged)).stored("train")
    with pytest.raises(ValueError, match=r"^source: no image of .* can be decoded"):
        held(stored, 8, "L")
    with pytest.raises(ValueError, match=r"can be decoded \(a/00.png: .*; check its files"):
        Images(ImageFolder(str(damaged))).collator(8, 2, 3, ())([Images(ImageFolder(str(damaged))).dataset()[0]])


def test_a_large_folder_costs_nothing_before_the_first_batch(tmp_path, monkeypatch):
    """No image is opened when the data set is made, and each once when it is needed."""
    write(tmp_path / "far.png")
    (tmp_path / "set" / "a").mkdir(parents=True)
    for i in range(500):
        os.symlink(tmp_path / "far.png", tmp_path / "set" / "a" / f"{i}.png")
    opened = []
    whole = Image.open
    monkeypatch.setattr(Image, "open", lambda file, *more: opened.append(file) or whole(file, *more))
    part = Images(ImageFolder(str(tmp_path / "set")))
    dataset, collate = part.dataset(), part.collator(8, 2, 3, ())
    assert not opened
    examples = dataset.__getitems__(range(32))
    assert not opened
    collate(examples)
    assert len(opened) == 32
    assert not isinstance(opened[0], io.BytesIO)


def test_fewer_images_come_from_all_over_the_folder(tmp_path):
    for label in "abcd":
        for i in range(5):
            write(tmp_path / label / f"{i}.png")
    few = Images(ImageFolder(str(tmp_path)), max_images=8).dataset()
    assert len(few) == 8
    assert np.bincount(few.images.labels).tolist() == [2] * 4
    assert all(a < b for a, b in pairwise(few.images.index.tolist()))
