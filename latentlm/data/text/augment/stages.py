"""The two places where a list of augmentations is applied: to documents before encoding, to examples in every epoch."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from latentlm.config.schema import kind_of
from latentlm.data.counter_rng import example_keys
from latentlm.data.documents import Document
from latentlm.data.text.augment.base import Draws, Needs, TextAugmentation, Transform
from latentlm.data.text.examples import Example


def augment_documents(documents: Sequence[Document], augment: Sequence[TextAugmentation]) -> list[Document]:
    """The documents stage of every augmentation, in the order of the list."""
    documents = list(documents)
    for part in augment:
        rng = random.Random(f"{part.stream or type(part).__name__}/{part.seed}")  # the same in every process
        documents = part.documents(documents, rng)
    return documents


def augment_examples(dataset: Any, augment: Sequence[TextAugmentation], seed: int) -> Any:
    """The encoded data set with the example stage of every augmentation; itself where there is none."""
    transforms = [transform for part in augment if (transform := part.examples(dataset)) is not None]
    return AugmentedDataset(dataset, transforms, seed) if transforms else dataset


def unmet_need(augment: Sequence[TextAugmentation], have: Sequence[Needs]) -> tuple[str, Needs] | None:
    """The first augmentation (its kind) that needs something that is not there, and what that is."""
    for part in augment:
        for need in part.needs:
            if need not in have:
                return kind_of(type(part)), need
    return None


class AugmentedDataset:
    """Encoded documents, changed as they are read; in every epoch otherwise.

    Draws belong to seed, epoch and example: the same whatever the batch, the process and the accumulation.

    Args:
        dataset: of `encode_dataset`.
        transforms: applied one after the other.
        seed: of the draws.
    """

    def __init__(self, dataset: Any, transforms: Sequence[Transform], seed: int):
        self.dataset, self.transforms, self.seed, self.epoch = dataset, transforms, seed, 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, index: Sequence[int]) -> list[dict[str, Any]]:
        """A whole batch, which torch's loader prefers to single examples."""
        rows = self.dataset.__getitems__(list(index))
        keys = example_keys(self.seed, self.epoch, np.asarray(index))
        changed = []
        for k, row in enumerate(rows):
            example, draws = Example.from_row(row), Draws(keys[k : k + 1])
            for transform in self.transforms:
                example = transform(example, draws)
            changed.append(example.to_row())
        return changed

    def set_epoch(self, epoch: int) -> None:
        """Which pass over the data this is."""
        self.epoch = epoch
