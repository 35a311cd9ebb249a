"""Where pictures come from: Fashion-MNIST, scikit-learn's digits, a folder or a hub data set."""

import gzip
import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pictures:
    """Images in memory and what is known about each.

    Attributes:
        images: uint8 ``[n c h w]``.
        labels: factor -> ``[n]``; integers are classes, floats are magnitudes.
    """

    images: np.ndarray
    labels: dict[str, np.ndarray]

    def take(self, index: Any) -> "Pictures":
        """Some of them, by anything that indexes an array."""
        return Pictures(self.images[index], {name: values[index] for name, values in self.labels.items()})


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
            return ImageFolder("zalando-datasets/fashion_mnist", size=28, mode="L").pictures(split)
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


@dataclass(frozen=True)
class ImageFolder:
    """Images of a folder (``class/name.png``, with or without a folder for each split) or of a hub data set.

    Each is cut to its middle square, resized and held in memory (channels * size^2 bytes an image), whatever sizes and
    modes they come in. A file that cannot be decoded is left out, counted and named in the log.

    Checked:   tests/data/images/test_image_sources.py - sizes, modes, corrupt files, every error line.

    Args:
        path: folder or hub data set.
        size: side of the square that is kept; crops are cut from it, so give it some more pixels than the model reads.
        mode: ``RGB`` or ``L`` (grey).
        subset: configuration of a hub data set.
        train, test: names of the splits; slices such as ``train[:90%]`` are allowed.
        image, label: column names; without that label column there are no labels.
    """

    path: str
    size: int
    mode: Literal["RGB", "L"] = "RGB"
    subset: str | None = None
    train: str = "train"
    test: str = "test"
    image: str = "image"
    label: str = "label"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size: {self.size}; set it to 1 or more")

    def pictures(self, split: Literal["train", "test"]) -> Pictures:
        """Images, with their ``label`` where there is one."""
        rows = self._rows(self.train if split == "train" else self.test)
        images, kept, bad = [], [], []
        for number, row in enumerate(rows[self.image]):
            try:
                images.append(self._decode(row))
                kept.append(number)
            except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: PIL's word for a broken PNG
                bad.append(f"{row.get('path') or f'row {number}'} ({error})")
        if bad:
            told = "; ".join(bad[:5]) + ("; ..." if len(bad) > 5 else "")
            _log.warning(
                "%d of %d images of %s cannot be decoded and are left out: %s", *(len(bad), len(rows)), self.path, told
            )
        if not images:
            raise ValueError(f"source.path: no image of {self.path} can be decoded; check its files")
        labels = {"label": np.asarray(rows[self.label])[kept]} if self.label in rows.column_names else {}
        return Pictures(np.stack(images), labels)

    def _rows(self, split: str) -> Any:
        path = Path(self.path).expanduser()
        if not path.is_dir() and (path.is_absolute() or self.path.startswith((".", "~"))):
            raise ValueError(f"source.path: there is no folder {self.path}; check the path")
        from datasets import Image, load_dataset
        from datasets.exceptions import DatasetsError

        try:
            if path.is_dir():
                rows = load_dataset("imagefolder", data_dir=str(path), split=split)
            else:
                rows = load_dataset(self.path, self.subset, split=split)
        except (OSError, ValueError, DatasetsError) as error:
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            raise ValueError(
                f"source: cannot read split {split} of {self.path} ({reason}); check its splits"
            ) from error
        if self.image not in rows.column_names:
            raise ValueError(f"source.image: {self.path} has the columns {rows.column_names}; name the one with images")
        return rows.cast_column(self.image, Image(decode=False))

    def _decode(self, row: dict) -> np.ndarray:
        from PIL import Image, ImageOps

        with Image.open(io.BytesIO(row["bytes"]) if row["bytes"] else row["path"]) as opened:
            image = ImageOps.fit(opened.convert(self.mode), (self.size, self.size), Image.Resampling.BICUBIC)
        array = np.asarray(image)
        return array[None] if self.mode == "L" else array.transpose(2, 0, 1)


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
