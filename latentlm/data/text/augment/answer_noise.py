"""Documents in which some tokens of the answer are replaced in the input."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from latentlm.data.text.augment.base import Draws, Needs, TextAugmentation, Transform
from latentlm.data.text.examples import Example


@dataclass(frozen=True)
class AnswerNoise(TextAugmentation):
    """Replace tokens of each document's answer by tokens of other answers; labels and isolated spans stay.

        x~_t = x_t with probability 1 - rate, else a token drawn from all answers

    The answer is the last span, if it can be a target. The tokens just before then do not tell how an answer continues,
    and a network has to look up whom it is about.

    Source:    word dropout, Bowman et al. 2016, arXiv 1511.06349. Differs: they put an unknown word, everywhere.
    Checked:   tests/data/text/augment/test_answer_noise.py - share, which tokens, labels, epochs, any batch the same.

    Args:
        rate: share of the answer's tokens.
    """

    rate: float = 0.4
    needs: ClassVar[tuple[Needs, ...]] = ("token_spans",)

    def __post_init__(self):
        if not 0 <= self.rate < 1:
            raise ValueError(f"answer_noise: rate {self.rate}; set it to 0 or more and below 1")

    def examples(self, dataset: Any) -> Transform:
        """Draws from the tokens of all answers."""
        pool = [
            token
            for ids, answer in zip(dataset["input_ids"], dataset["answer"], strict=True)
            for token in ids[slice(*answer)]
        ]
        if not pool:
            raise ValueError("answer_noise: no document ends in a span that can be a target; give other data")
        return _Replace(self.rate, pool)


@dataclass(frozen=True)
class _Replace:
    rate: float
    pool: Sequence[int]

    def __call__(self, example: Example, draws: Draws) -> Example:
        first, stop = example.answer
        replaced = (draws.uniform("drop", stop - first) < self.rate).tolist()
        other = (draws.uniform("other", stop - first).double() * len(self.pool)).long().tolist()
        ids = list(example.input_ids)
        for k in range(stop - first):
            if replaced[k]:
                ids[first + k] = self.pool[other[k]]
        return replace(example, input_ids=ids)
