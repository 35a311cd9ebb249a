"""Images that are decoded when they are needed: where each is stored, and what happens where one cannot be read."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from latentlm.data.images.decoding import EncodedImage, Mode, UnreadableError

_log = logging.getLogger(__name__)
SHOWN = 5  # names in a warning
_NAME = 200  # bytes of a name
_NEIGHBOURS = 100  # images in a row that cannot be read: then it is not a few damaged files


Cut = Callable[[EncodedImage], Any]
"""What is done with an image when it is opened."""


class Names(Sequence[str]):
    """Strings in one block of bytes, which processes share: a list of a million is copied by each that counts on it."""

    def __init__(self, names: Sequence[str]):
        encoded = [name.encode(errors="surrogateescape") for name in names]
        self._ends = np.cumsum([len(each) for each in encoded], dtype=np.int64)
        self._block = np.frombuffer(b"".join(encoded), np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        index = range(len(self))[index]
        if isinstance(index, range):
            return Names([self[i] for i in index])
        start = self._ends[index - 1] if index else 0
        return self._block[start : self._ends[index]].tobytes().decode(errors="surrogateescape")


class StoredImages:
    """Images of a folder or a table, none of which is held in memory.

    One that cannot be read is replaced by the next that can, so that batches keep their size; `unreadable` remembers
    which, over all workers of a loader.

    Args:
        source: what they belong to, for messages.
        file: number -> path or bytes.
        called: number -> what the image is called.
        index: numbers of those that belong to this set.
        labels: class of each, if they have classes.
        classes: names of the classes.
    """

    def __init__(
        self,
        source: str,
        file: Callable[[int], str | bytes],
        called: Callable[[int], str],
        index: np.ndarray,
        labels: np.ndarray | None = None,
        classes: Sequence[str] = (),
    ):
        self.source, self.file, self.called, self.index = source, file, called, index
        self.labels, self.classes = labels, tuple(classes)
        self.unreadable = torch.zeros(len(index), dtype=torch.uint8).share_memory_()
        self._told = 0

    def __len__(self) -> int:
        return len(self.index)

    def take(self, index: np.ndarray) -> "StoredImages":
        """Some of them."""
        labels = None if self.labels is None else self.labels[index]
        return StoredImages(self.source, self.file, self.called, self.index[index], labels, self.classes)

    def __getitem__(self, number: int) -> "StoredImage":
        return StoredImage(self, number)

    def tell_unreadable(self, what: str = "others stood in for them") -> None:
        """One warning with the count and the names of what could not be read since the last."""
        bad = self.unreadable.nonzero()[:, 0].tolist()
        if len(bad) > self._told:
            self._told = len(bad)
            names = [self.called(int(self.index[i])) for i in bad[:SHOWN]]
            _tell(f"{len(bad)} of {len(self)} images of {self.source} cannot be read, {what}", names, len(bad))


class StoredImage:
    """One image of a set, opened where it is cut: in a worker of the loader."""

    def __init__(self, images: StoredImages, number: int):
        self._images, self._number = images, number

    def read(self, cut: Cut) -> Any:
        """What `cut` makes of the image, or of the next one that can be read."""
        reason = ""
        for offset in range(min(_NEIGHBOURS, len(self._images))):
            try:
                return StoredImage(self._images, (self._number + offset) % len(self._images)).read_only(cut)
            except UnreadableError as error:
                reason = reason or str(error)
        raise ValueError(f"source: no image of {self._images.source} can be decoded ({reason}); check its files")

    def read_only(self, cut: Cut) -> Any:
        """What `cut` makes of this image; one that cannot be read is remembered."""
        images, place = self._images, int(self._images.index[self._number])
        if images.unreadable[self._number]:
            raise UnreadableError(f"{images.called(place)}: cannot be read")
        try:
            return cut(EncodedImage(images.file(place)))
        except UnreadableError as error:
            images.unreadable[self._number] = 1
            raise UnreadableError(f"{images.called(place)}: {error}") from error


class UnreadableRows:
    """How many images of a stream could not be read and the names of the first, counted by all workers of a loader."""

    def __init__(self, source: str):
        self.source = source
        self._count = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._names = torch.zeros(SHOWN, _NAME, dtype=torch.uint8).share_memory_()

    def note(self, name: str) -> None:
        """Count one."""
        place, text = int(self._count[0]), list(name.encode()[-_NAME:])
        if place < SHOWN:
            self._names[place, : len(text)] = torch.tensor(text, dtype=torch.uint8)
        self._count += 1

    def tell_unreadable(self) -> None:
        """One warning with the count and the names of what could not be read since the last."""
        if num := int(self._count[0]):
            names = [bytes(row.tolist()).rstrip(b"\0").decode(errors="replace") for row in self._names[:num]]
            _tell(f"{num} images of {self.source} cannot be read, others stood in for them", names, num)
            self._count.zero_()
            self._names.zero_()


class StreamedImage:
    """One image of a stream, opened where it is cut; the ones before it stand in where it cannot be read.

    Args:
        files: it and the ones before it, as `datasets` gives undecoded images.
        unreadable: where those are counted that cannot be read.
    """

    def __init__(self, files: Sequence[dict], unreadable: UnreadableRows):
        self._files, self._unreadable = tuple(files), unreadable

    def read(self, cut: Cut) -> Any:
        """What `cut` makes of the image, or of the last one that could be read."""
        reason = ""
        for number, file in enumerate(self._files):
            try:
                return cut(EncodedImage(file["bytes"] or file["path"]))
            except UnreadableError as error:
                reason = f"{file['path'] or 'an image without a name'}: {error}"
                if not number:
                    self._unreadable.note(str(file["path"] or "without a name"))
        told = f"{len(self._files)} images in a row cannot be decoded ({reason})"
        raise ValueError(f"source: {told}; check {self._unreadable.source}")


def _tell(what: str, names: Sequence[str], num: int) -> None:
    _log.warning("%s: %s%s", what, "; ".join(names), "; ..." if num > len(names) else "")


def centre_square(image: EncodedImage, size: int, mode: Mode) -> UInt8[Tensor, "c s s"]:
    """The largest square in the middle, resized."""
    side = min(image.width, image.height)
    box = ((image.width - side) / 2 / image.width, (image.height - side) / 2 / image.height)
    return cut(image, [(*box, side / image.width, side / image.height)], [size], mode)[0]


def cut(
    image: EncodedImage, boxes: Sequence[Sequence[float]], sizes: Sequence[int], mode: Mode
) -> list[UInt8[Tensor, "c s s"]]:
    """Cut every box out of an image, resized by an antialiased bicubic filter; as in `Views` a negative width mirrors.

    Source:    Pillow's `resize(box=...)`: cuts and resizes at once, at positions between pixels.
    Checked:   tests/data/images/test_decoding.py - crops of an image of its own coordinates.
    """
    from PIL import Image

    needed = [
        (size / max(abs(width), 1e-6), size / height) for (_, _, width, height), size in zip(boxes, sizes, strict=True)
    ]
    whole = image.pixels(mode, (max(wide for wide, _ in needed), max(high for _, high in needed)))
    found = []
    for (left, top, width, height), size in zip(boxes, sizes, strict=True):
        edges = np.clip([min(left, left + width), top, max(left, left + width), top + height], 0, 1)
        box = tuple((edges * np.tile(whole.size, 2)).tolist())
        view = np.asarray(whole.resize((size, size), Image.Resampling.BICUBIC, box))
        view = view[:, ::-1] if width < 0 else view
        # one copy, to what torch may write to
        found.append(torch.from_numpy(np.array(view[None] if mode == "L" else view.transpose(2, 0, 1), order="C")))
    return found
