"""Pictures that are held in memory: Fashion-MNIST, scikit-learn's digits, and small numbers of stored images."""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from latentlm.data.images.decoding import Mode, UnreadableError
from latentlm.data.images.hf_dataset import HfDataset
from latentlm.data.images.stored import StoredImages, centre_square


@dataclass(frozen=True)
class Pictures:
    """Images in memory and what is known about each.

    Attributes:
        images: uint8 ``[n c h w]``.
        labels: factor -> ``[n]``; integers are classes, floats are magnitudes.
    """

    images: np.ndarray
    labels: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> np.ndarray:
        return self.images[number]

    def take(self, index: Any) -> "Pictures":
        """Some of them, by anything that indexes an array."""
        return Pictures(self.images[index], {name: values[index] for name, values in self.labels.items()})


def held(images: StoredImages, size: int, mode: Mode) -> Pictures:
    """The middle squares of stored images in memory, `size` pixels wide; what cannot be read is left out and told."""
    found, kept = [], []
    for number in range(len(images)):
        try:
            found.append(images[number].read_only(lambda image: centre_square(image, size, mode)).numpy())
            kept.append(number)
        except UnreadableError:
            continue
    images.tell_unreadable("left out")
    if not found:
        raise ValueError(f"source: no image of {images.source} can be decoded; check its files")
    labels = {} if images.labels is None else {"label": images.labels[kept].astype(np.int64)}
    return Pictures(np.stack(found), labels)


@dataclass(frozen=True)
class FashionMnist:
    """Clothes: 60 000 + 10 000 grey images of 28 x 28 in ten classes.

    Source:    Xiao et al. 2017, arXiv:1708.07747.
    Checked:   tests/data/images/test_image_sources.py - counts, mean .2860, deviation .3530.

    Args:
        path: folder with the four idx files, packed or not; None: the data set ``zalando-datasets/fashion_mnist``.
    """

    path: str | None = None

    def pictures(self, split: Literal["train", "test"]) -> Pictures:
        """Images with their ``label``."""
        if self.path is None:
            return held(HfDataset("zalando-datasets/fashion_mnist").stored(split), 28, "L")
        folder, prefix = Path(self.path).expanduser(), "train" if split == "train" else "t10k"
        images = _read_idx(folder, f"{prefix}-images-idx3-ubyte")
        return Pictures(images[:, None], {"label": _read_idx(folder, f"{prefix}-labels-idx1-ubyte").astype(np.int64)})


@dataclass(frozen=True)
class Digits:
    """Handwritten digits of scikit-learn, 1437 + 360 grey images of 8 x 8: small and easy, for tests."""

    def pictures(self, split: Literal["train", "test"]) -> Pictures:
        """Images with their ``label``; every fifth is a test image."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ValueError("source: digits come with scikit-learn; pip install scikit-learn") from error
        digits: Any = load_digits()
        test = np.arange(len(digits.target)) % 5 == 4
        images = (digits.images * (255 / 16)).round().astype(np.uint8)[:, None]
        every = Pictures(images, {"label": digits.target.astype(np.int64)})
        return every.take(test if split == "test" else ~test)


def _read_idx(folder: Path, name: str) -> np.ndarray:
    """An idx file of bytes: two zeros, type 8, number of axes, their lengths (big-endian), the values."""
    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
    if path is None:
        raise ValueError(f"source.path: {folder} has no {name}[.gz]; give a folder with the four idx files")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ValueError(f"source.path: {path} is damaged ({error}); fetch it again") from error
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError(f"source.path: {path} is not an idx file of bytes; fetch it again")
    shape = np.frombuffer(data, ">u4", data[3], 4)
    if len(data) != 4 + 4 * len(shape) + int(shape.prod()):
        raise ValueError(f"source.path: {path} has not the length its head says; fetch it again")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape).copy()
