"""What an augmentation is: two hooks, of which it has one or both, and what it needs of the rest of a recipe."""

import random
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from latentlm.data.counter_rng import uniforms
from latentlm.data.documents import Document
from latentlm.data.text.examples import Example

Needs = Literal["token_spans", "isolated_source", "attention_mask", "units_alone"]


class Draws:
    """Random numbers of one example in one epoch: the same in whatever batch, process or order it is drawn."""

    def __init__(self, key: np.ndarray):
        self._key = key

    def uniform(self, stream: str, num: int) -> Tensor:
        """Numbers in [0, 1); every `stream` is independent of the others (its first eight letters count)."""
        return uniforms(self._key, stream, num)[0]


Transform = Callable[[Example, Draws], Example]


class TextAugmentation:
    """The two hooks. A subclass is a frozen dataclass, which is also its own config.

    Attributes:
        seed: of the documents stage.
        stream: name of the random numbers of the documents stage; by default the class name.
        needs: ``token_spans``: examples with `spans` and `answer`, so data with spans; ``isolated_source``: sources
            that are read as a sequence of their own; ``attention_mask``: attention that takes a mask; ``units_alone``:
            terms over units that are read alone.
    """

    seed: int = 0
    stream: ClassVar[str] = ""
    needs: ClassVar[tuple[Needs, ...]] = ()

    def documents(self, documents: list[Document], rng: random.Random) -> list[Document]:
        """Documents stage, once before encoding: other documents, or the same with other spans or edits."""
        return documents

    def examples(self, dataset: Any) -> Transform | None:
        """Example stage, in every epoch: a function of one encoded example and its draws; None: nothing to do.

        Args:
            dataset: all encoded examples (columns are the fields of `Example`), for what is drawn from other ones.
        """
        return None


def check_share(kind: str, key: str, value: float) -> None:
    """ValueError that names the key where its value is not in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{kind}: {key} {value} is a share; set it to 0 - 1")
