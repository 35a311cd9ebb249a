"""Images as the data of a recipe: a source, the views of each image, a mask, and the way to batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latentlm.components.positions import At
from latentlm.data.counter_rng import example_keys
from latentlm.data.images.augmentations import Views
from latentlm.data.images.collate import ImageCollator, image_sets
from latentlm.data.images.masks import Mask
from latentlm.data.images.scenes import Scenes
from latentlm.data.images.sources import Digits, FashionMnist, ImageFolder, Pictures

Source = FashionMnist | Digits | ImageFolder | Scenes


@dataclass(frozen=True)
class Images:
    """Images to train on without their labels.

    Args:
        source: where they come from.
        views: crops and changes of each image; by default the image itself.
        mask: which patches are hidden; None: none.
        max_images: how many to take from the start; None: all.
        mean, std: of the channels, for ``(x / 255 - mean) / std``; one number stands for all. Without them those of the
            checkpoint's processor, and 0.5 for a network from scratch.
    """

    source: Source
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
    def sets(self) -> tuple[str, ...]:
        """Named sets its batches can have."""
        return image_sets(self.views, self.mask)

    def dataset(self, seed: int = 0) -> "ImageDataset":
        """The training images; `seed` draws crops and masks."""
        pictures = self.source.pictures("train")
        return ImageDataset(pictures.take(slice(self.max_images)), seed)

    def collator(
        self, size: int, patch: int, channels: int, sets: tuple[str, ...], taught: tuple[At, ...] = ()
    ) -> ImageCollator:
        """From examples to batches for a network that reads images of this size."""
        mean, std = self.mean or (0.5,), self.std or (0.5,)
        return ImageCollator(self.views, self.mask, size, patch, channels, mean, std, sets, taught)


class ImageDataset:
    """Images with the key from which their crops and masks are drawn: another one in every epoch.

    Transformers' and accelerate's loops call `set_epoch`; data loader workers copy it when the epoch starts.
    """

    def __init__(self, pictures: Pictures, seed: int):
        self.pictures, self.seed, self.epoch = pictures, seed, 0

    def __len__(self) -> int:
        return len(self.pictures.images)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, index: Sequence[int]) -> list[dict]:
        """A whole batch: torch's loader asks for it where it is there."""
        keys = example_keys(self.seed, self.epoch, np.asarray(index))
        return [{"image": self.pictures.images[i], "key": key} for i, key in zip(index, keys, strict=True)]

    def set_epoch(self, epoch: int) -> None:
        """Which pass over the data this is."""
        self.epoch = epoch
