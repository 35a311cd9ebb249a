"""Sources of images in memory: known counts and means, what is damaged is named."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from latentlm.data.images import Digits, FashionMnist

FASHION_MNIST = Path(os.environ.get("LATENTLM_FASHION_MNIST", "fashion-mnist"))  # the four idx files


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
