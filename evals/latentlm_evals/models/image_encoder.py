"""A ViT as a function from images to the states of every depth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel

from latentlm.backbones import find_backbone
from latentlm.backbones.geometry import encoder_config, geometry, image_key
from latentlm.backbones.load import load_config, load_weights, readable
from latentlm.backbones.preprocessing import read_preprocessing
from latentlm_evals.models.hidden_states import check_depths, check_finite, fingerprint, kept, tapped
from latentlm_evals.models.load import dtype_of

Place = Literal["mean", "cls", "both", "patches"]


class ImageEncoder:
    """States of a ViT; depth 0 is the input of the first block, k the raw output of block k.

    Attributes:
        name: where it comes from.
        model, processor: the network, on the device where it runs, and what resizes and standardises its images.
        num_layers, dim: of the network.
        cache: folder in which states are kept, if any.
    """

    kind = "image"

    def __init__(self, name: str, model: Any, processor: Any, cache: Path | None = None):
        self.name, self.model, self.processor, self.cache = name, model.eval(), processor, cache
        self.backbone = find_backbone(model)
        self.num_layers, self.dim = self.backbone.num_layers, self.backbone.dim
        assert self.backbone.grid is not None  # it reads pixels
        self.grid, self.patch = self.backbone.grid, self.backbone.grid.patch

    def random_init(self, seed: int) -> "ImageEncoder":
        """The same architecture with fresh weights: the null of everything read off the states."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = type(self.model)(self.model.config)
        model.to(device=self.model.device, dtype=self.model.dtype)
        return ImageEncoder(f"{self.name} (random init)", model, self.processor, self.cache)

    def cached(self, folder: str | Path) -> "ImageEncoder":
        """The same, with states kept on disk: the next call with equal weights, images and settings reads them."""
        return ImageEncoder(self.name, self.model, self.processor, Path(folder))

    def states(
        self,
        images: Sequence[Any],
        at: Place = "mean",
        depths: Sequence[int] | None = None,
        batch_size: int = 32,
    ) -> Tensor:
        """States ``[n depths d]``, float32 on the CPU, of the class token or the patches' mean; of both, ``2d`` wide.

        Args:
            images: PIL images, or uint8 arrays ``[h w]`` or ``[h w c]``.
            at: ``mean`` of the patches, ``cls`` token, ``both`` beside each other, or all ``patches`` in raster order:
                ``[n depths p d]``.
            depths: blocks; None: all, 0 included.
            batch_size: images in a forward; does not change the result.
        """
        depths = check_depths(self.name, self.num_layers, depths)
        if not len(images):
            raise ValueError("images: there are none to read")
        if at not in get_args(Place):
            raise ValueError(f"at: {at} is for texts; images are read at {', '.join(get_args(Place))}")
        pixels = [self._array(image) for image in images]
        if self.cache is None:
            return self._read(pixels, at, depths, batch_size)
        asked = repr((fingerprint(self.model), self.processor.to_json_string(), at, depths)).encode()
        asked += b"".join(repr(each.shape).encode() + each.tobytes() for each in pixels)
        return kept(self.cache, asked, lambda: self._read(pixels, at, depths, batch_size))

    def _array(self, image: Any) -> np.ndarray:
        pixels, channels = np.asarray(image), self.grid.channels
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] not in (1, channels):
            given = f"{pixels.dtype} {list(pixels.shape)}"
            raise ValueError(f"images: one is {given}; give PIL images or uint8 [h w c] with 1 or {channels} channels")
        return pixels.repeat(channels, -1) if pixels.shape[-1] == 1 else pixels

    @torch.inference_mode()
    def _read(self, images: list[np.ndarray], at: Place, depths: list[int], batch_size: int) -> Tensor:
        found = []
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            read = self.processor(images=batch, return_tensors="pt", input_data_format="channels_last")
            pixels = read["pixel_values"].to(self.model.device)
            rows, columns = self.grid.shape(pixels)
            patches = rows * columns
            states = tapped(
                lambda pixels=pixels: self.model(**self.grid.inputs(pixels, None)),
                self.backbone.layers,
                depths,
                lambda state, patches=patches: self._gather(state, at, patches),
            )
            found.append(states)
        return check_finite(self.name, torch.cat(found), depths, lambda i: f"image {i}")

    def _gather(self, state: Tensor, at: Place, patches: int) -> Tensor:
        front = state.shape[1] - patches  # the class token, then registers, then patches
        if front < 0:
            raise ValueError(f"{self.name}: {state.shape[1]} positions for {patches} patches; it drops or merges some")
        if at in ("cls", "both") and not front:
            raise ValueError("at: this network has no class token; use mean or patches")
        if at == "both":
            return torch.cat([state[:, 0], state[:, front:].mean(1)], -1)
        if at == "cls":
            return state[:, 0]
        return state[:, front:].mean(1) if at == "mean" else state[:, front:]


def load_image_encoder(name: str, path: str, device: torch.device, data: Any) -> ImageEncoder:
    """The ViT of a folder or hub name.

    Args:
        name: what it is called.
        path: of the weights.
        device: torch device.
        data: of the run that trained it, which says how pixels were standardised; None for other checkpoints.
    """
    config = load_config(path)
    model = load_weights(AutoModel, path, config=encoder_config(config), dtype=dtype_of(config, device), part=True)
    return ImageEncoder(name, model.to(device), _processor(path, model.config, data))


def _processor(path: str, config: Any, data: Any) -> Any:
    # imported here, where its word about torchvision is not shown
    from transformers import AutoImageProcessor, ViTImageProcessor

    # others read clips, or images cut up
    plain = image_key(config) == "image_size" or config.model_type == "timm_wrapper"
    if plain and (not Path(path).is_dir() or (Path(path) / "preprocessor_config.json").is_file()):
        with readable(path):
            return AutoImageProcessor.from_pretrained(path, trust_remote_code=False)
    sizes = geometry(config, path)
    (high, wide), channels = sizes.image, sizes.channels
    told = read_preprocessing(path) or data
    mean, std = (list(getattr(told, key, None) or [0.5]) for key in ("mean", "std"))
    mean, std = (value * channels if len(value) == 1 else value for value in (mean, std))
    return ViTImageProcessor(size={"height": high, "width": wide}, image_mean=mean, image_std=std)
