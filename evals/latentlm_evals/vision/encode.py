"""Images as the data parts keep them, uint8 ``[n c h w]``, into the shared image encoder and as it sees them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from latentlm_evals.models.image_encoder import ImageEncoder, Place


def states(encoder: ImageEncoder, images: np.ndarray, at: Place, depths: Sequence[int] | None = None) -> Tensor:
    """``[n depths d]`` for the mean of the patches or the class token, ``[n depths p d]`` for all patches."""
    # 250 images of 32 x 32 pixels, and fewer the larger they are
    batch = max(8, min(250, 250 * 32**2 // (images.shape[-1] * images.shape[-2])))
    return encoder.states(list(images.transpose(0, 2, 3, 1)), at=at, depths=depths, batch_size=batch)


def pixels(encoder: ImageEncoder, images: np.ndarray) -> Tensor:
    """``[n c h w]`` as the network reads them: resized, standardised."""
    channels = encoder.model.config.num_channels
    rows = list(images.transpose(0, 2, 3, 1).repeat(channels // images.shape[1], -1))
    return encoder.processor(images=rows, return_tensors="pt", input_data_format="channels_last")["pixel_values"]


def unstandardised(encoder: ImageEncoder, values: Tensor) -> Tensor:
    """Back to [0, 1], for the eye."""
    mean, std = (
        torch.tensor(each).view(-1, 1, 1) for each in (encoder.processor.image_mean, encoder.processor.image_std)
    )
    return (values * std + mean).clamp(0, 1)


def side(encoder: ImageEncoder, images: np.ndarray) -> int:
    """Patches along a side."""
    return pixels(encoder, images[:1]).shape[-1] // encoder.patch[1]
