"""Documents in which what follows a span sees nothing of it but its end."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from latentlm.data.counter_rng import example_keys, uniforms


class Gist:
    """Encoded documents, a share of which says what is hidden from whom; in every epoch other ones.

        hidden = [first, end - 1, end) of every span of two tokens or more, with probability p:
        its tokens first .. end - 2 are not seen from position `end` on

    What is to be told of a span later then has to be known at its last token, where the terms read it. Ids, labels
    and lone spans stay. Draws belong to seed, epoch and document: the same whatever the batch and the process.

    Source:    gist masking, Mu et al. 2023, arXiv 2304.08467. Differs: no token is added, the last one of a span
               stands for it; only a share of the documents, so that a network stays used to seeing everything.
    Checked:   tests/data/text/test_gist_masking.py - share, where, epochs, and that no later logit knows what is
               hidden.

    Args:
        dataset: of `encode_dataset` with `places`, or `WordDropout` of it.
        share: p.
        seed: another seed hides other ones.

    Raises:
        ValueError: if nothing can be hidden.
    """

    def __init__(self, dataset: Any, share: float, seed: int):
        self.dataset, self.share, self.seed, self.epoch = dataset, share, seed, 0
        if not any(map(hidden_in, getattr(dataset, "dataset", dataset)["places"])):
            raise ValueError("gist: no document has a span of two tokens; give spans or other data, or leave it out")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, index: Sequence[int]) -> list[dict]:
        """A whole batch: torch's loader asks for it where it is there."""
        rows = self.dataset.__getitems__(list(index))
        keys = example_keys(self.seed, self.epoch, np.asarray(index))
        for row, drawn in zip(rows, (uniforms(keys, "gist", 1)[:, 0] < self.share).tolist(), strict=True):
            row["hidden"] = hidden_in(row["places"]) if drawn else []
        return rows

    def set_epoch(self, epoch: int) -> None:
        """Which pass over the data this is."""
        self.epoch = epoch
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


def hidden_in(places: list[list[int]]) -> list[list[int]]:
    """Of each span ``[first, end)`` all but its last token, hidden from what follows: ``[first, stop, since]``."""
    return [[first, end - 1, end] for first, end in places if end - first > 1]
