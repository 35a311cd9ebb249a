"""A folder of image files: any layout that torchvision's `ImageFolder` reads, with or without folders for splits."""

import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from latentlm.data.images.stored import Names, StoredImages

_log = logging.getLogger(__name__)

Split = Literal["train", "test"]
SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif",
)  # fmt: skip
TRAIN = ("train", "training")
TEST = ("test", "val", "validation", "valid", "testing", "eval", "dev")
SHARE = 0.2  # of each class, where an evaluation needs test images and none are set aside


@dataclass(frozen=True)
class ImageFolder:
    """Image files below a folder, ``CLASS/…/name.png``; decoded when a step needs them, nothing is kept.

    The folders directly below are the classes; without any there are no labels. Links are followed. Where the folders
    directly below are named like splits, ``train`` and one of test, val, validation, ..., and no others are there, each
    holds a split. Hidden folders and empty ones are no classes.

    Checked:   tests/data/images/test_image_folder.py - every layout, splits, what cannot be read.

    Args:
        path: the folder.
        train: folder below `path` to train on; None: the one called train, where there are splits.
        test: folder below `path` to evaluate on, or the share of each class that is set aside and not trained on; None:
            the one called test, val, ..., where there are splits. Without any, training takes all images and an
            evaluation sets aside a fifth of each class.
    """

    path: str
    train: str | None = None
    test: float | str | None = None

    def __post_init__(self) -> None:
        check_share(self.test)

    def stored(self, split: Split, share: float | None = None) -> StoredImages:
        """Where the images of a split are; `share`: of each class to set aside where there are no test images."""
        root = Path(self.path).expanduser()
        if not root.is_dir():
            raise ValueError(f"source.path: there is no folder {self.path}; check the path")
        train, test = self._folders(root)
        classes = _by_class(root / train)
        aside = self.test if isinstance(self.test, float) else None if test is not None else share
        if split == "train" or aside is not None:
            every = _listed(root, train, classes, list(classes))
            return every if aside is None else every.take(set_aside(every, aside, split))
        if test is None:
            raise ValueError(f"source.test: {self.path} has no folder of test images; give a share, such as test=0.2")
        return _listed(root, test, _by_class(root / test), list(classes))

    def _folders(self, root: Path) -> tuple[str, str | None]:
        """Folders below `root` with the images to train on ("": itself), and with those to evaluate on."""
        below = [path.name for path in _folders_in(root)]
        for key, name in (("train", self.train), ("test", self.test)):
            if isinstance(name, str) and not (root / name).is_dir():
                raise ValueError(f"source.{key}: there is no folder {name} in {self.path}; it has {', '.join(below)}")
        train, test = (next((name for name in names if name in below), None) for names in (TRAIN, TEST))
        if train is None or not set(below) <= {*TRAIN, *TEST} or len(below) < 2:  # classes, whatever they are called
            train, test = "", None
        return self.train or train, self.test if isinstance(self.test, str) else test


def check_share(test: float | str | None) -> None:
    """Refuse a share of nothing or of everything."""
    if isinstance(test, float) and not 0 < test < 1:
        raise ValueError(f"test: {test} is a share; set it above 0 and below 1")


def set_aside(images: StoredImages, share: float, split: Split) -> np.ndarray:
    """Numbers of a split: the same share of every class is set aside, chosen by names, whatever else is there."""
    order = np.array([_hash(images.called(int(i))) for i in images.index])
    labels = np.zeros(len(images), np.int64) if images.labels is None else images.labels
    is_test = np.zeros(len(images), bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        num = min(max(1, round(share * len(own))), len(own) - 1)
        is_test[own[np.argsort(order[own], kind="stable")[:num]]] = True
    if not is_test.any():
        raise ValueError(f"source.test: {images.source} has too few images to set some aside; add some")
    return np.flatnonzero(is_test if split == "test" else ~is_test)


def _by_class(folder: Path) -> dict[str, list[str]]:
    """Image files of every folder directly below that holds some."""
    found = {path.name: list(_files(path)) for path in _folders_in(folder)}
    return {name: files for name, files in found.items() if files}


def _listed(root: Path, folder: str, files: dict[str, list[str]], classes: list[str]) -> StoredImages:
    start = root / folder
    if unknown := sorted(set(files) - set(classes)):
        told = f"{start} has classes that are not among those to train on: {', '.join(unknown[:5])}"
        raise ValueError(f"source.test: {told}; name both alike")
    names = [file for name in classes for file in files.get(name, ())]
    labels = [label for label, name in enumerate(classes) for _ in files.get(name, ())]
    if not classes:
        names = list(_files(start))
    elif loose := sum(entry.name.lower().endswith(SUFFIXES) for entry in os.scandir(start) if entry.is_file()):
        _log.warning("%d images directly in %s belong to no class and are left out", loose, start)
    if not names:
        kinds = sorted({Path(name).suffix for _, _, below in os.walk(start) for name in below} - {""})
        told = f"but files that end in {' '.join(kinds[:8])}" if kinds else "and nothing else"
        raise ValueError(f"source.path: {start} has no images, {told}; images end in {' '.join(SUFFIXES)}")
    kept = Names([name[len(str(root)) + 1 :] for name in names])
    numbers = np.arange(len(kept))
    where = partial(_path, str(root), kept)
    return StoredImages(str(root), where, kept.__getitem__, numbers, np.array(labels) if classes else None, classes)


def _path(root: str, names: Names, number: int) -> str:
    return os.path.join(root, names[number])


def _folders_in(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _files(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Image files at any depth, in the order of their names; a link to a folder above is not followed again."""
    stat = os.stat(folder)
    if (own := (stat.st_dev, stat.st_ino)) in above:
        return
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _files(Path(entry.path), above | {own})
        elif entry.name.lower().endswith(SUFFIXES):
            yield entry.path


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=7).digest(), "little")
