"""Images to evaluate on: at most so many of a split, and the checks without which a score means nothing."""

from dataclasses import replace

import numpy as np

from latentlm.data.images import Pictures, Scenes
from latentlm.data.images.dataset import Source, Stored
from latentlm.data.images.decoding import Mode
from latentlm.data.images.folder import SHARE, Split
from latentlm.data.images.sources import held
from latentlm_evals.models.image_encoder import ImageEncoder

SAME = 0.1  # share of test images that are training images as well, from which on the two are not told apart


def pictures(source: Source, split: Split | str, num: int, seed: int, encoder: ImageEncoder | None = None) -> Pictures:
    """At most `num` images of a split, drawn at random where the order may mean something.

    Stored images are drawn evenly from all classes, and read as large as `encoder` reads them. Where a folder has no
    test images, a fifth of each class is set aside.
    """
    if isinstance(source, Scenes):
        return replace(source, num_train=num, num_test=num).pictures(split)  # type: ignore[arg-type]
    if isinstance(source, Stored):
        if source_is_stream(source):
            raise ValueError("source.streaming: an evaluation draws from the whole set; leave it out")
        size, mode = (32, "RGB") if encoder is None else size_of(encoder)
        stored = source.stored("train" if split == "train" else "test", SHARE)
        return held(stored.take(balanced(stored.labels, len(stored), num, seed)), size, mode)
    every = source.pictures(split)  # type: ignore[arg-type]
    return every.take(np.random.default_rng(seed).permutation(len(every.images))[:num])


def source_is_stream(source: Source) -> bool:
    """Whether it can only be read from its start."""
    return bool(getattr(source, "streaming", False))


def size_of(encoder: ImageEncoder) -> tuple[int, Mode]:
    """Side of the images that a network reads, and their mode."""
    asked = dict(encoder.processor.crop_size or {}) if getattr(encoder.processor, "do_center_crop", False) else {}
    asked = asked or dict(encoder.processor.size or {})
    sides = [asked[key] for key in ("height", "width", "shortest_edge") if asked.get(key)]
    side = max(sides) if sides else int(np.max(encoder.model.config.image_size))
    return side, "L" if encoder.model.config.num_channels == 1 else "RGB"


def balanced(labels: np.ndarray | None, total: int, num: int, seed: int) -> np.ndarray:
    """Numbers of at most `num` images in random order, as many of each class as there are."""
    order = np.random.default_rng(seed).permutation(total)
    if labels is None:
        return order[:num]
    turn = np.zeros(total, np.int64)  # the first image of every class comes before the second of any
    for label in np.unique(labels):
        own = np.flatnonzero(labels[order] == label)
        turn[own] = np.arange(len(own))
    return order[np.argsort(turn, kind="stable")][:num]


def check_parts(train: Pictures, test: Pictures, label: str | None) -> list[str]:
    """Refuse images that are on both sides and classes that are on one; what is merely odd is a warning."""
    seen = {image.tobytes() for image in train.images}
    same = sum(image.tobytes() in seen for image in test.images)
    if same > SAME * len(test.images):
        raise ValueError(
            f"source: {same} of {len(test.images)} test images are training images as well; name other splits, or have "
            "a share set aside with test: 0.2"
        )
    if label is not None:
        unknown = np.setdiff1d(test.labels[label], train.labels[label])
        if len(unknown):
            raise ValueError(
                f"source: test images are of {len(unknown)} classes that no training image has (such as "
                f"{unknown[0]}); name splits that both have all classes, or have a share set aside with test: 0.2"
            )
    return [f"same images: {same} of {len(test.images)} test images are training images as well"] if same else []
