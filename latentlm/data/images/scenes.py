"""Scenes: generated pictures whose every factor is known, from the texture of the fur to how two things stand."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from latentlm.data.counter_rng import example_keys, uniforms
from latentlm.data.images.scene_renderer import (
    BODIES,
    COLOURS,
    FURS,
    GLYPHS,
    RELATIONS,
    SIDE,
    SLOTS,
    STROKES,
    TOPS,
    draw,
)
from latentlm.data.images.sources import Pictures

VERSION = 1  # part of every seed: raise it whenever a change would alter the pictures
CLASSES = {
    "fur": len(FURS),
    "stroke": len(STROKES),
    "colour": len(COLOURS),
    "body": len(BODIES),
    "top": len(TOPS),
    "count": 5,
    "relation": len(RELATIONS),
    "pile": 2,
    "chalk": len(GLYPHS),
}
RANGES = {"x": (10.5, 17.5), "y": (14.0, 17.0), "scale": (3.6, 5.2), "light": (0.75, 1.0), "ground": (0.0, 0.25)}
LEVELS = {
    "detail": ("fur", "stroke", "colour", "x", "y", "scale"),
    "semantic": ("body", "top", "identity", "count", "relation", "pile"),
    "nuisance": ("light", "ground"),
    "noise": ("noise",),
    "later": ("chalk",),
}
"""Factors by what they are for: what is to be kept, what is to be composed, what is to be ignored, what nobody can
predict, and what only a later task asks for."""

Factors = dict[str, np.ndarray]
_STREAMS = {"train": 0, "test": 1, "held_out": 2}


@dataclass(frozen=True)
class Scenes:
    """Colour pictures of 32 x 32: an animal of two parts, a ball beside or inside it, marbles, dots piled up or not.

    Every factor is drawn on its own, evenly, so none tells another. The animal is a body and a top; its fur is a
    texture of 2 to 4 pixels. Held out are the animals whose top has the number of their body: each part is seen in
    training, never the two together. The count is of marbles above; a pile has as many dots as no pile.

    =========  =================================================================================================
    level      factors
    =========  =================================================================================================
    detail     fur (4), stroke (3: the outline), colour (6), x, y, scale (in pixels)
    semantic   body (4), top (4), identity (16: both), count (0..4), relation (3: left of, right of, inside), pile (2)
    nuisance   light, ground (brightness of everything, and of the background)
    noise      the part of the pixel noise along one fixed pattern, in deviations: there, but not predictable
    later      chalk (4: a glyph of 3 x 3 pixels on a board), only with `blackboard`
    =========  =================================================================================================

    Checked:   tests/data/images/test_scenes.py - factors even and independent, splits disjoint, every factor can be
               read off
               the pixels, the same in all processes.

    Args:
        num_train, num_test: pictures; as many held-out ones as test ones.
        noise: deviation of the noise of every pixel, of 1.
        blackboard: put a board with a glyph into the corner; nothing else depends on it.
        seed: another seed gives other pictures.
    """

    num_train: int = 20000
    num_test: int = 4000
    noise: float = 0.05
    blackboard: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_train < 1 or self.num_test < 1 or self.noise < 0 or self.seed < 0:
            raise ValueError(
                "num_train, num_test, noise, seed: set the numbers to 1 or more, noise and seed to 0 or more"
            )

    def pictures(self, split: Literal["train", "test", "held_out"]) -> Pictures:
        """Pictures with all their factors; ``held_out`` has the animals that are in no other split."""
        factors = self.sample(split)
        return Pictures(self.render(factors), {name: factors[name] for name in self.factors})

    @property
    def factors(self) -> tuple[str, ...]:
        """Names of the factors, level by level."""
        names = [name for level in LEVELS.values() for name in level]
        return tuple(names if self.blackboard else names[:-1])

    def sample(self, split: Literal["train", "test", "held_out"], num: int | None = None) -> Factors:
        """Factors of the pictures of a split; `key` draws the rest: noise, and where marbles and dots lie."""
        num = num or (self.num_train if split == "train" else self.num_test)
        keys = example_keys(self.seed * 1000 + VERSION, _STREAMS[split], np.arange(num))
        names = [*CLASSES, *RANGES]
        u = dict(zip(names, uniforms(keys, "factors", len(names)).T.double().numpy(), strict=True))
        factors = {name: (u[name] * num_classes).astype(np.int64) for name, num_classes in CLASSES.items()}
        factors |= {name: low + u[name] * (high - low) for name, (low, high) in RANGES.items()}
        if split == "held_out":
            factors["top"] = factors["body"]
        else:  # one of the other tops, evenly
            factors["top"] = (factors["body"] + 1 + (u["top"] * (len(TOPS) - 1)).astype(np.int64)) % len(TOPS)
        return _named({**factors, "key": keys})

    def changed(self, factors: Factors, **to: np.ndarray) -> Factors:
        """The same scenes with some factors set: with `render`, pairs for equivariance."""
        return _named({**factors, **to})

    def render(self, factors: Factors) -> np.ndarray:
        """Pictures as uint8 ``[n 3 32 32]``; fills in the factor ``noise``."""
        num = len(factors["key"])
        images, along = np.empty((num, 3, SIDE, SIDE), np.uint8), np.empty(num)
        pattern = np.random.default_rng(VERSION).choice([-1.0, 1.0], (4, 4, 3))  # the same in every patch
        pattern = np.tile(pattern, (SIDE // 4, SIDE // 4, 1)).astype(np.float32)
        for start in range(0, num, 256):
            part = {name: values[start : start + 256] for name, values in factors.items()}
            u = uniforms(part["key"], "noise", SIDE * SIDE * 3).numpy().reshape(-1, SIDE, SIDE, 3)
            noise = (u - 0.5) * np.float32(12**0.5)
            along[start : start + 256] = (noise * pattern).sum((1, 2, 3)) / pattern.size**0.5
            where = uniforms(part["key"], "places", SLOTS).numpy()
            pixels = draw(part, where, self.blackboard) + np.float32(self.noise) * noise
            images[start : start + 256] = (pixels.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 3, 1, 2)
        factors["noise"] = along
        return images


def _named(factors: Factors) -> Factors:
    return {**factors, "identity": factors["body"] * len(TOPS) + factors["top"]}
