"""Examples of several sources as one data set, in memory or read while training."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset

from latentlm.data.mixture import Stopping

Stream = Any  # datasets.IterableDataset: too slow to import for checking a recipe
Rows = Callable[[Mapping[str, list[Any]]], list[dict[str, Any]]]
BUFFER = 1000  # documents of a stream that are shuffled with each other


def _interleaved(datasets: list[Any], shares: Sequence[float], seed: int, stopping: Stopping) -> Any:
    from datasets import interleave_datasets

    return interleave_datasets(datasets, probabilities=list(shares), seed=seed, stopping_strategy=stopping)


class Mixed:
    """Examples in memory: which part each comes from is drawn once; an epoch reads on in a part where the last stopped.

    Args:
        parts: data sets with ``__getitems__``.
        shares: of the parts.
        stopping: as of `Mixture`.
        seed: of the draws.
    """

    def __init__(self, parts: Sequence[Any], shares: Sequence[float], stopping: Stopping, seed: int):
        from datasets import Dataset

        self.parts, self.seed = parts, seed
        self.orders: dict[int, Any] = {}
        places = [Dataset.from_dict({"part": [i] * len(part), "row": range(len(part))}) for i, part in enumerate(parts)]
        order = _interleaved(places, shares, seed, stopping)
        self.part, self.row = np.asarray(order["part"]), np.asarray(order["row"])
        self.set_epoch(0)

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, index: Sequence[int]) -> list[dict[str, Any]]:
        """A whole batch, as torch's loader asks for it."""
        found: dict[int, dict[str, Any]] = {}
        wanted = np.asarray(index)
        for number, part in enumerate(self.parts):
            places = np.flatnonzero(self.part[wanted] == number)
            if len(places):
                rows = self.orders[number][self.row[wanted[places]]].tolist()
                for place, row in zip(places.tolist(), part.__getitems__(rows), strict=True):
                    found[place] = {**row, "part": number}
        return [found[place] for place in range(len(wanted))]

    def set_epoch(self, epoch: int) -> None:
        """The rows of each part that follow those of the last epoch, in an order of their own."""
        for number, part in enumerate(self.parts):
            order = np.random.default_rng([self.seed, number]).permutation(len(part))
            used = len(np.unique(self.row[self.part == number]))
            self.orders[number] = np.roll(order, -epoch * used)
        _tell(self.parts, epoch)


class Streamed(IterableDataset):
    """Examples that are made while they are read; each part is shuffled within a buffer.

    Args:
        parts: streams of rows.
        makers: for each part, a batch of its rows -> rows of `Example`.
        shares: of the parts.
        stopping: as of `Mixture`.
        seed: of the draws.
        kept: data sets in memory that are told the epoch.
    """

    def __init__(
        self,
        parts: Sequence[Stream],
        makers: Sequence[Rows],
        shares: Sequence[float],
        stopping: Stopping,
        seed: int,
        kept: Sequence[Any] = (),
    ):
        from datasets import Features, Value

        self.kept = kept

        # as text: the columns of the parts differ, and a row is read once
        features = Features({"part": Value("int64"), "row": Value("string")})
        streams = []
        for number, (stream, make) in enumerate(zip(parts, makers, strict=True)):
            columns = list(next(iter(stream)))
            shuffled = stream.shuffle(seed=seed + number, buffer_size=BUFFER)
            streams.append(
                shuffled.map(
                    _Written(number, make), batched=True, batch_size=8, remove_columns=columns, features=features
                )
            )
        self.stream = _interleaved(streams, shares, seed, stopping)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.stream:
            yield {**json.loads(row["row"]), "part": row["part"]}

    def set_epoch(self, epoch: int) -> None:
        """Another order."""
        self.stream.set_epoch(epoch)
        _tell(self.kept, epoch)


def _tell(parts: Sequence[Any], epoch: int) -> None:
    """Which pass over the data this is, where examples change with it."""
    for part in parts:
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)


class _Written:
    """The examples of a batch of rows as text."""

    def __init__(self, part: int, make: Rows):
        self.part, self.make = part, make

    def __call__(self, batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        rows = [json.dumps(row) for row in self.make(batch)]
        return {"part": [self.part] * len(rows), "row": rows}
