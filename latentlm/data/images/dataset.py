"""Images as the data of a recipe: a source, the views of each image, a mask, and the way to batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from latentlm.components.positions import At
from latentlm.data.counter_rng import example_keys
from latentlm.data.images.augmentations import Views
from latentlm.data.images.collate import ImageCollator, image_sets
from latentlm.data.images.folder import ImageFolder
from latentlm.data.images.hf_dataset import FORMATS, HfDataset, ImageStream
from latentlm.data.images.masks import Mask
from latentlm.data.images.scenes import Scenes
from latentlm.data.images.sources import Digits, FashionMnist, Pictures
from latentlm.data.images.stored import StoredImages

Held = FashionMnist | Digits | Scenes
"""Images that are held in memory."""
Stored = ImageFolder | HfDataset
"""Images that are decoded when a step needs them."""
Source = Held | Stored


def source_of(source: str | Source) -> Source:
    """The source as a part: a path is a folder of image files, or what `datasets` reads."""
    if not isinstance(source, str):
        return source
    path = Path(source).expanduser()
    if path.is_dir():
        holds_tables = any(
            each.suffix.lower() in FORMATS for folder in (path, path / "data") for each in folder.glob("*")
        )
        return HfDataset(source) if holds_tables else ImageFolder(source)
    is_local = path.is_absolute() or source.startswith((".", "~"))
    return ImageFolder(source) if is_local and path.suffix.lower() not in FORMATS else HfDataset(source)


@dataclass(frozen=True)
class Images:
    """Images to train on without their labels.

    Args:
        source: a folder of image files, what `datasets` reads (a hub data set, .parquet or .tar files), or a part such
            as ``{kind: scenes}``.
        views: crops and changes of each image; by default the image itself.
        mask: which patches are hidden; None: none.
        max_images: how many to take, of files from all over the folder; None: all.
        mean, std: of the channels, for ``(x / 255 - mean) / std``; one number stands for all. Without them those of the
            checkpoint's processor, and 0.5 for a network from scratch.
    """

    source: str | Source
    views: Views = Views()
    mask: Mask | None = None
    max_images: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.max_images is not None and self.max_images < 1:
            raise ValueError(f"max_images: {self.max_images}; set it to 1 or more, or leave it out")
        if any(each is not None and len(each) not in (1, 3) for each in (self.mean, self.std)) or (
            self.std is not None and min(self.std) <= 0
        ):
            raise ValueError("mean, std: give one number each, or one for each of 3 channels; std above 0")

    @property
    def part(self) -> Source:
        """The source as a part."""
        return source_of(self.source)

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its batches can have."""
        return image_sets(self.views, self.mask)

    def dataset(self, seed: int = 0) -> "ImageDataset | ImageStream":
        """The training images; `seed` draws crops and masks."""
        part, most = self.part, self.max_images
        if isinstance(part, HfDataset) and part.streaming:
            if most is not None:
                raise ValueError(
                    "max_images: a stream is read from its start; leave it out, training.max_steps ends it"
                )
            return part.stream(seed)
        if isinstance(part, Stored):
            stored = part.stored("train")
            # listed class by class: the first ones would be one class
            if most is not None and most < len(stored):
                stored = stored.take(np.linspace(0, len(stored) - 1, most).astype(int))
            return ImageDataset(stored, seed)
        if isinstance(part, Scenes) and most is not None:
            part = replace(part, num_train=min(most, part.num_train))
        return ImageDataset(part.pictures("train").take(slice(most)), seed)

    def collator(
        self, size: int, patch: int, channels: int, sets: tuple[str, ...], taught: tuple[At, ...] = ()
    ) -> ImageCollator:
        """From examples to batches for a network that reads images of this size."""
        mean, std = self.mean or (0.5,), self.std or (0.5,)
        return ImageCollator(self.views, self.mask, size, patch, channels, mean, std, sets, taught)


class ImageDataset(Dataset):
    """Images with the key from which their crops and masks are drawn: another one in every epoch.

    Transformers' and accelerate's loops call `set_epoch`; data loader workers copy it when the epoch starts.
    """

    def __init__(self, images: Pictures | StoredImages, seed: int):
        self.images, self.seed, self.epoch = images, seed, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, index: Sequence[int]) -> list[dict[str, Any]]:
        """A whole batch: torch's loader asks for it where it is there."""
        keys = example_keys(self.seed, self.epoch, np.asarray(index))
        return [{"image": self.images[i], "key": key} for i, key in zip(index, keys, strict=True)]

    @property
    def is_decoded_late(self) -> bool:
        """Whether images are decoded when a batch is made: work for a loader's workers."""
        return isinstance(self.images, StoredImages)

    def set_epoch(self, epoch: int) -> None:
        """Which pass over the data this is."""
        self.epoch = epoch

    def tell_unreadable(self) -> None:
        """Warn of images that could not be read."""
        if isinstance(self.images, StoredImages):
            self.images.tell_unreadable()
