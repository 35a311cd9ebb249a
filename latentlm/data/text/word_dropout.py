"""Documents of which a part of the answer is read wrong, in every epoch another part."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from latentlm.data.counter_rng import example_keys, uniforms


class WordDropout:
    """Encoded documents whose answer is read with some of its tokens exchanged; what is to be predicted stays.

        x~_t = x_t with probability 1 - p, else a token drawn from all answers;   labels, codes and lone spans stay

    The answer is the last span, unless a document says which spans are named and it is none of them. The words just
    before then do not tell how an answer goes on, and a network has to look up of whom it speaks; what is not named
    is learned as it stands. Draws belong to seed, epoch and document: the same whatever the batch, the process and the
    accumulation.

    Source:    word dropout, Bowman et al. 2016, arXiv 1511.06349. Differs: they read an unknown word, everywhere.
    Checked:   tests/data/text/test_word_dropout.py - share, where, labels, epochs, any batch alike.

    Args:
        dataset: of `encode_dataset` with `places`.
        share: p.
        seed: another seed exchanges other tokens.
    """

    def __init__(self, dataset: Any, share: float, seed: int):
        self.dataset, self.share, self.seed, self.epoch = dataset, share, seed, 0
        self.tokens = [
            token
            for ids, answer in zip(dataset["input_ids"], dataset["answer"], strict=True)
            for token in ids[slice(*answer)]
        ]
        if not self.tokens:
            raise ValueError(
                "word_dropout: no document ends in a span (of pairs.named); give other data or leave it out"
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, index: Sequence[int]) -> list[dict]:
        """A whole batch: torch's loader asks for it where it is there."""
        rows = self.dataset.__getitems__(list(index))
        keys = example_keys(self.seed, self.epoch, np.asarray(index))
        answers = [range(*row["answer"]) for row in rows]
        longest = max(map(len, answers))
        wrong = (uniforms(keys, "drop", longest) < self.share).tolist()
        other = (uniforms(keys, "other", longest).double() * len(self.tokens)).long().tolist()
        for row, answer, dropped, drawn in zip(rows, answers, wrong, other, strict=True):
            for k, place in enumerate(answer):
                if dropped[k]:
                    row["input_ids"][place] = self.tokens[drawn[k]]
        return rows

    def set_epoch(self, epoch: int) -> None:
        """Which pass over the data this is."""
        self.epoch = epoch
