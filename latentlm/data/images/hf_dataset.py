"""Images of a data set that Hugging Face's `datasets` reads: of the hub, parquet, webdataset; streamed where asked."""

import glob
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset

from latentlm.data.counter_rng import example_keys
from latentlm.data.images.folder import Split, check_share, set_aside
from latentlm.data.images.stored import StoredImages, StreamedImage, UnreadableRows

IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp")
LABELS = ("label", "labels", "cls", "class", "fine_label")
TEST = ("test", "validation", "valid", "val")
BUFFER = 1000  # encoded images that a stream is shuffled in
STAND_IN = 8  # images kept to stand in for one that cannot be read
FORMATS = {".parquet": "parquet", ".tar": "webdataset", ".arrow": "arrow"}


@dataclass(frozen=True)
class HfDataset:
    """Images that `datasets.load_dataset` reads; decoded when a step needs them.

    Checked:   tests/data/images/test_hf_dataset.py - parquet and webdataset, streamed or not, splits, columns.

    Args:
        path: hub data set, a folder of it, or files (.parquet, .tar of webdataset, .arrow; * stands for any name).
        subset: configuration of a hub data set.
        train: split to train on; slices such as ``train[:90%]`` are allowed.
        test: split to evaluate on, or the share of each class of `train` that is set aside; None: the split called
            test, validation, ..., where there is one.
        streaming: read from the start while training, for sets that do not fit on the disk; shuffled in a buffer of
            1000 images. Needs training.max_steps.
        image, label: names of columns; None: the ones that datasets use, such as image, jpg or img; label or cls.
    """

    path: str
    subset: str | None = None
    train: str = "train"
    test: float | str | None = None
    streaming: bool = False
    image: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        check_share(self.test)
        if self.streaming and isinstance(self.test, float):
            raise ValueError("test: no share of a stream can be set aside; name a split, or leave streaming out")

    def stored(self, split: Split, share: float | None = None) -> StoredImages:
        """Where the images of a split are; `share`: of each class to set aside where there are no test images."""
        self._check_path()
        test = self.test if isinstance(self.test, str) else self._test_split() if self.test is None else None
        aside = self.test if isinstance(self.test, float) else None if test is not None else share
        if split == "test" and test is None and aside is None:
            raise ValueError(f"source.test: {self.path} has no test split; give a share, such as test=0.2")
        rows = self._rows(self.train if split == "train" or test is None else test)
        image, label = self._columns(rows)
        labels = None if label is None else np.asarray(rows.select_columns([label])[label][:])
        classes: Sequence[str] = getattr(rows.features.get(label), "names", None) or ()
        if labels is not None and labels.dtype.kind not in "iu":
            raise ValueError(f"source.label: column {label} of {self.path} holds no whole numbers; name another")
        called = partial(_called, rows.select_columns([image]), image)
        found = StoredImages(self.path, partial(_file, rows, image), called, np.arange(len(rows)), labels, classes)
        return found if test is not None or aside is None else found.take(set_aside(found, aside, split))

    def stream(self, seed: int) -> "ImageStream":
        """The training images in the order in which they are read, shuffled in a buffer."""
        self._check_path()
        rows = self._rows(self.train, streaming=True)
        image, _ = self._columns(rows)
        return ImageStream(rows, image, self.path, seed)

    def _check_path(self) -> None:
        path = Path(self.path).expanduser()
        is_local = path.is_absolute() or self.path.startswith((".", "~")) or path.suffix.lower() in FORMATS
        if is_local and not path.exists() and not glob.glob(str(path)):
            raise ValueError(f"source.path: there is no file or folder {self.path}; check the path")

    def _rows(self, split: str, streaming: bool = False) -> Any:
        from datasets import Image, load_dataset
        from datasets.exceptions import DatasetsError

        path, suffix = Path(self.path).expanduser(), Path(self.path).suffix.lower()
        try:
            if suffix in FORMATS:
                files = {"train": str(path)}
                rows = load_dataset(FORMATS[suffix], data_files=files, split=split, streaming=streaming)
            else:
                name = str(path) if path.is_dir() else self.path
                rows = load_dataset(name, self.subset, split=split, streaming=streaming)
        except (OSError, ValueError, DatasetsError) as error:
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            raise ValueError(
                f"source: cannot read split {split} of {self.path} ({reason}); check its splits"
            ) from error
        columns = self._columns(rows)
        return rows.cast_column(columns[0], Image(decode=False))

    def _columns(self, rows: Any) -> tuple[str, str | None]:
        """Names of the columns with images and with labels."""
        names = list(rows.column_names or rows.features or ())
        found = [self.image] if self.image else [name for name in IMAGES if name in names]
        if not found or found[0] not in names:
            raise ValueError(f"source.image: {self.path} has the columns {names}; name the one with images")
        if self.label is not None and self.label not in names:
            raise ValueError(f"source.label: {self.path} has the columns {names}; name the one with labels")
        return found[0], self.label or next((name for name in LABELS if name in names), None)

    def _test_split(self) -> str | None:
        from datasets import get_dataset_split_names
        from datasets.exceptions import DatasetsError

        if Path(self.path).suffix.lower() in FORMATS:
            return None
        path = Path(self.path).expanduser()
        try:
            names = get_dataset_split_names(str(path) if path.is_dir() else self.path, self.subset)
        except (OSError, ValueError, DatasetsError) as error:
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            raise ValueError(f"source: cannot read {self.path} ({reason}); check its name") from error
        return next((name for name in TEST if name in names), None)


class ImageStream(IterableDataset):
    """Rows of a stream with the key from which their crops and masks are drawn: another one in every pass.

    A loader's workers share the files among themselves, so no more workers than files do anything.
    """

    def __init__(self, rows: Any, image: str, source: str, seed: int):
        self._rows, self._image, self._source, self._seed, self.epoch = rows, image, source, seed, 0
        self.unreadable = UnreadableRows(source)

    is_decoded_late = True

    @property
    def num_shards(self) -> int:
        """Files that can be read side by side."""
        return self._rows.num_shards

    def set_epoch(self, epoch: int) -> None:
        """Which pass over the data this is."""
        self.epoch = epoch

    def tell_unreadable(self) -> None:
        """Warn of images that could not be read."""
        self.unreadable.tell_unreadable()

    def __iter__(self) -> Iterator[dict]:
        from torch.utils.data import get_worker_info

        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        rows = self._rows.shuffle(self._seed, buffer_size=BUFFER)
        rows.set_epoch(self.epoch)
        before: deque[Any] = deque(maxlen=STAND_IN)
        files = (row[self._image] for row in rows)
        for number, (file, after) in enumerate(pairwise(chain(files, [None]))):
            others = [each for each in (after, *before) if each is not None]
            key = example_keys(self._seed, self.epoch, np.array([first + number * step]))[0]
            yield {"image": StreamedImage([file, *others], self.unreadable), "key": key}
            before.appendleft(file)


def _file(rows: Any, image: str, number: int) -> str | bytes:
    row = rows[number][image]
    return row["bytes"] if row["bytes"] else row["path"]


def _called(rows: Any, image: str, number: int) -> str:
    return str(rows[number][image]["path"] or f"row {number}")
