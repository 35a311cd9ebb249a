"""Images to evaluate on."""

from dataclasses import replace

import numpy as np

from latentlm.data.images import Pictures, Scenes
from latentlm.data.images.dataset import Source


def pictures(source: Source, split: str, num: int, seed: int) -> Pictures:
    """At most `num` images of a split, drawn at random where the order may mean something."""
    if isinstance(source, Scenes):
        return replace(source, num_train=num, num_test=num).pictures(split)  # type: ignore[arg-type]
    every = source.pictures(split)  # type: ignore[arg-type]
    return every.take(np.random.default_rng(seed).permutation(len(every.images))[:num])
