"""Sources of images: known counts and means, any size and mode, what is damaged is named."""

import gzip
import logging
import os
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from latentlm.data.images import Digits, FashionMnist, ImageFolder

FASHION_MNIST = Path(os.environ.get("LATENTLM_FASHION_MNIST", "fashion-mnist"))  # the four idx files


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="no idx files here (LATENTLM_FASHION_MNIST)")
def test_fashion_mnist():
    train, test = FashionMnist(str(FASHION_MNIST)).pictures("train"), FashionMnist(str(FASHION_MNIST)).pictures("test")
    assert train.images.shape == (60000, 1, 28, 28)
    assert test.images.shape == (10000, 1, 28, 28)
    assert train.images.mean() / 255 == pytest.approx(0.2860, abs=1e-4)
    assert train.images.std() / 255 == pytest.approx(0.3530, abs=1e-4)
    assert np.bincount(train.labels["label"]).tolist() == [6000] * 10
    assert np.bincount(test.labels["label"]).tolist() == [1000] * 10


def test_digits():
    train, test = Digits().pictures("train"), Digits().pictures("test")
    assert train.images.shape == (1438, 1, 8, 8)
    assert test.images.shape == (359, 1, 8, 8)
    assert train.images.max() == 255
    assert set(np.unique(test.labels["label"])) == set(range(10))


def _write_idx(folder, name, values, packed):
    head = b"\0\0\x08" + bytes([values.ndim]) + np.array(values.shape, ">u4").tobytes()
    data = head + values.astype(np.uint8).tobytes()
    (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(data) if packed else data)


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_of_a_folder(tmp_path, packed):
    images, labels = np.arange(2 * 28 * 28).reshape(2, 28, 28) % 256, np.array([3, 9])
    _write_idx(tmp_path, "t10k-images-idx3-ubyte", images, packed)
    _write_idx(tmp_path, "t10k-labels-idx1-ubyte", labels, packed)
    found = FashionMnist(str(tmp_path)).pictures("test")
    assert np.array_equal(found.images[:, 0], images)
    assert found.labels["label"].tolist() == [3, 9]
    with pytest.raises(ValueError, match=r"^source.path: .* has no train-images-idx3-ubyte\[.gz\]"):
        FashionMnist(str(tmp_path)).pictures("train")


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("train-images-idx3-ubyte.gz", b"not packed", "is damaged"),
        ("train-images-idx3-ubyte", b"not idx", "is not an idx file"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x01\0\0\0\x05abc", "has not the length its head says"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path, name, data, line):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=line) as error:
        FashionMnist(str(tmp_path)).pictures("train")
    assert name in str(error.value)


@pytest.fixture
def folder(tmp_path):
    """Two classes; images of four sizes and modes, each with a white left half."""
    for number, (mode, size) in enumerate([("RGB", (20, 20)), ("L", (16, 24)), ("RGBA", (40, 20)), ("P", (12, 12))]):
        image = Image.new("RGB", size)
        image.paste((255, 255, 255), (0, 0, size[0] // 2, size[1]))
        path = tmp_path / "images" / ("cat" if number % 2 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.convert(mode).save(path)
    return tmp_path / "images"


def test_mixed_sizes_and_modes_become_one(folder):
    for mode, channels in (("RGB", 3), ("L", 1)):
        found = ImageFolder(str(folder), size=8, mode=mode).pictures("train")
        assert found.images.shape == (4, channels, 8, 8)
        assert found.labels["label"].tolist() == [0, 0, 1, 1]  # cat, dog
        assert found.images[..., :3].min() > 200
        assert found.images[..., 5:].max() < 55


def test_damaged_files_are_left_out_counted_and_named(folder, caplog):
    (folder / "cat" / "broken.png").write_bytes((folder / "cat" / "1.png").read_bytes()[:40])
    with caplog.at_level(logging.WARNING):
        found = ImageFolder(str(folder), size=8).pictures("train")
    assert len(found.images) == len(found.labels["label"]) == 4
    assert "1 of 5 images" in caplog.text
    assert "broken.png" in caplog.text


def test_splits_are_folders_or_slices(folder):
    assert len(ImageFolder(str(folder), size=8, train="train[:3]", test="train[3:]").pictures("test").images) == 1
    with pytest.raises(ValueError, match=r"^source: cannot read split test of .*; check its splits"):
        ImageFolder(str(folder), size=8).pictures("test")


def test_what_cannot_be_read_is_told_in_one_line(folder, tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        ImageFolder(str(tmp_path / "none"), size=8).pictures("train")
    with pytest.raises(ValueError, match=r"^source.image: .* has the columns"):
        ImageFolder(str(folder), size=8, image="picture").pictures("train")
    with pytest.raises(ValueError, match=r"^size"):
        ImageFolder(str(folder), size=0)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"^source.path: no image of .* can be decoded"):
        ImageFolder(str(folder), size=8).pictures("train")
