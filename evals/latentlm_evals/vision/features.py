"""Images to evaluate on, and the features to read from: every depth of the network, and the floors beside it."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentlm_evals.models.image_encoder import ImageEncoder, Place
from latentlm_evals.vision.encode import pixels, states

LARGEST = 32  # side of raw pixels: a linear map of 224 x 224 x 3 would have more weights than anybody has images

Reader = Callable[[np.ndarray], dict[str, Tensor]]
"""Images -> name of the features -> ``[n d]``."""


def readers(encoder: ImageEncoder, train: np.ndarray, at: Place, floors: bool, seed: int) -> dict[str, Reader]:
    """Every depth of the network; with `floors` also of fresh weights, raw pixels, and 64 principal components."""
    found = {"network": _depths(encoder, "depth", at)}
    if floors:
        found["random"] = _depths(encoder.random_init(seed), "random", at)
        found["pixels"] = _raw(encoder, train)
    return found


def _depths(encoder: ImageEncoder, name: str, at: Place) -> Reader:
    return lambda images: {
        f"{name} {depth}": features for depth, features in enumerate(states(encoder, images, at).unbind(1))
    }


def _raw(encoder: ImageEncoder, train: np.ndarray) -> Reader:
    """As the images are stored, in [0, 1], but no larger than the network reads them, nor than `LARGEST`."""
    size = min(LARGEST, pixels(encoder, train[:1]).shape[-1])

    def flat(images: np.ndarray) -> Tensor:
        values = torch.from_numpy(images).float() / 255
        if values.shape[-1] > size:
            values = F.interpolate(values, (size, size), mode="bilinear", antialias=True)
        return values.flatten(1)

    centred, centre = flat(train), flat(train).mean(0)
    centred = centred - centre
    _, basis = torch.linalg.eigh(centred.T @ centred)
    basis = basis[:, -64:]
    return lambda images: {"raw pixels": flat(images), "pca 64": (flat(images) - centre) @ basis}
