"""A Hugging Face ViT as a function from images to the states of every depth."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from latentlm.config import ConfigError
from latentlm.data.images import Views
from latentlm.data.images.collate import ImageCollator
from latentlm.recipe import load_recipe

from ..runs import is_run, weights_of

Place = Literal["mean", "cls", "patches"]


class ImageEncoder:
    """States of a ViT; depth 0 is the input of the first block, k the raw output of block k.

    Attributes:
        name: where it comes from.
        model: the network, on the device where it runs.
        num_layers, dim: of the network.
        side: patches along a side of an image.
    """

    def __init__(self, name: str, model: Any, mean: tuple[float, ...] = (0.5,), std: tuple[float, ...] = (0.5,)):
        self.name, self.model, config = name, model.eval(), model.config
        self.num_layers, self.dim = config.num_hidden_layers, config.hidden_size
        self.collator = ImageCollator(
            Views(), None, config.image_size, config.patch_size, config.num_channels, mean, std
        )
        self.side = self.collator.side

    def random_init(self, seed: int) -> "ImageEncoder":
        """The same architecture with fresh weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModel.from_config(self.model.config).to(self.model.device)
        return ImageEncoder(f"{self.name} (random)", model, self.collator.mean, self.collator.std)

    def pixels(self, images: np.ndarray) -> Tensor:
        """uint8 ``[n c h w]`` as the network reads them: resized, standardised."""
        keys = np.zeros(len(images), np.uint64)
        return self.collator([{"image": image, "key": key} for image, key in zip(images, keys, strict=True)])[
            "pixel_values"
        ]

    @torch.inference_mode()
    def states(self, images: np.ndarray, at: Place = "mean", batch_size: int = 250) -> Tensor:
        """``[n depths d]`` for the mean of the patches or the class token, ``[n depths p d]`` for all patches."""
        patches, found = self.side**2, []
        for start in range(0, len(images), batch_size):
            pixels = self.pixels(images[start : start + batch_size]).to(self.model.device)
            hidden = self.model(pixel_values=pixels, output_hidden_states=True).hidden_states
            every = torch.stack(hidden, 1)
            if at == "cls":
                if every.shape[2] == patches:
                    raise ConfigError("at: this network has no class token; use at=mean")
                found.append(every[:, :, 0].float().cpu())
            else:
                rows = every[:, :, -patches:].float()
                found.append((rows.mean(2) if at == "mean" else rows).cpu())
        return torch.cat(found)


def load_image_encoder(name: str, device: str | None = None) -> ImageEncoder:
    """The network of a run folder, a Hugging Face folder or a hub name."""
    path = weights_of(name)
    config = AutoConfig.from_pretrained(path)
    if not all(hasattr(config, key) for key in ("image_size", "patch_size", "num_channels", "num_hidden_layers")):
        raise ConfigError(f"{name}: holds a {config.model_type}, which reads no images; name a ViT")
    model = AutoModel.from_pretrained(path).to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    data = load_recipe(name).data if is_run(name) else None
    standard = (data.mean, data.std) if data is not None and hasattr(data, "mean") else ()
    return ImageEncoder(name, model, *standard)
