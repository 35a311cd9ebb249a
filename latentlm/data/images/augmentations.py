"""Views of images: crops, flips and colour changes of a whole batch at once, drawn from each example's own numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from latentlm.data.counter_rng import uniforms

_LUMA = (0.299, 0.587, 0.114)
_Range = tuple[float, ...]
ALL = slice(None)


@dataclass(frozen=True)
class Views:
    """What the network sees of each image; by default the image as it is, once.

    A crop's share of the area is uniform in `scale` and its aspect log-uniform in `ratio`, as far as it fits inside.
    Then, in this order: flip, brightness, contrast, saturation and hue, grey, blur, solarize. Local views show less of
    the image, at the model's image size or at `local_size`. Cuts are sampled bilinearly, so images stored at more than
    twice the model's size would alias.

    Source:    random resized crop and colours of Chen et al. 2020 (SimCLR), arXiv:2002.05709, local crops of Caron et
               al. 2020, arXiv:2006.09882, solarize of Grill et al. 2020 (BYOL). Differs: aspects that do not fit
               are not drawn again; hue is a rotation about the grey axis; the four changes of colour have one order.
    Checked:   tests/data/images/test_augmentations.py - crop geometry on an image of its own coordinates, every change
               against its
               formula, an example is the same in every batch.

    Args:
        num: global views.
        scale: least and greatest share of the image in a global view.
        local: local views, behind the global ones.
        local_scale: the same for local views.
        local_size: side of the local views, a multiple of the patch (96); by default the model's image size.
        ratio: least and greatest width / height of a crop.
        flip: probability of a mirror image.
        jitter: strength s of brightness, contrast, saturation (factors in 1 +- 0.8 s) and hue (+- 0.2 s of a turn);
            done with probability 0.8.
        saturation: strength of saturation, where it is another (DINO and BYOL: jitter 0.5, saturation 0.25).
        grayscale: probability.
        blur, solarize: probability, or one for each global view and behind them one for all local views (DINO:
            ``[1.0, 0.1, 0.5]``); blur is a Gaussian whose deviation is uniform from 0.1 pixel to 1/56 of the side, at
            most 2 pixels.
    """

    num: int = 1
    scale: _Range = (1.0, 1.0)
    local: int = 0
    local_scale: _Range = (0.05, 0.4)
    local_size: int | None = None
    ratio: _Range = (3 / 4, 4 / 3)
    flip: float = 0.0
    jitter: float = 0.0
    saturation: float | None = None
    grayscale: float = 0.0
    blur: float | tuple[float, ...] = 0.0
    solarize: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        if self.num < 1 or self.local < 0:
            raise ValueError(f"num, local: {self.num}, {self.local}; set num to 1 or more and local to 0 or more")
        for key, most in (("scale", 1.0), ("local_scale", 1.0), ("ratio", math.inf)):
            values = getattr(self, key)
            if len(values) != 2 or not 0 < values[0] <= values[1] <= most:
                raise ValueError(f"{key}: {list(values)}; give the least and the greatest, above 0 and up to {most:g}")
        for key in ("flip", "grayscale", "blur", "solarize"):
            value = getattr(self, key)
            if not all(0 <= each <= 1 for each in (value if isinstance(value, tuple) else (value,))):
                raise ValueError(f"{key}: {value}; a probability is from 0 to 1")
            if isinstance(value, tuple) and len(value) != (num := self.num + bool(self.local)):
                raise ValueError(f"{key}: {len(value)} probabilities; give {num}, one for each global view"
                                 f"{' and one for local ones' if self.local else ''}, or a number for all")  # fmt: skip
        for key in ("jitter", "saturation"):
            if not 0 <= (getattr(self, key) or 0) <= 1:
                raise ValueError(f"{key}: {getattr(self, key)}; set it from 0 to 1")
        if self.saturation is not None and not self.jitter:
            raise ValueError("saturation: is a part of jitter, which is 0; set jitter")
        if self.local_size is not None and (self.local < 1 or self.local_size < 1):
            raise ValueError(f"local_size: {self.local_size}, with {self.local} local views; set both to 1 or more")

    @property
    def total(self) -> int:
        """Views of an image, local ones included."""
        return self.num + self.local

    @property
    def recolours(self) -> bool:
        """Whether anything but crops and flips is done."""
        return bool(self.jitter or self.grayscale) or bool(
            self._by_view(self.blur).any() or self._by_view(self.solarize).any()
        )

    def __call__(
        self, images: UInt8[Tensor, "b c h w"], keys: np.ndarray, size: int, which: slice = ALL
    ) -> Float[Tensor, "bv c s s"]:
        """Views of images of one size, image by image, as numbers in [0, 1]; `which`: of the views, all by default."""
        pixels = images.float().div_(255)
        if self.scale == (1.0, 1.0) and not self.local and not self.flip and images.shape[-1] == images.shape[-2]:
            views = pixels if pixels.shape[-2:] == (size, size) else _resize(pixels, size)
            views = views.repeat_interleave(len(range(self.total)[which]), 0)
        else:
            views = crop(pixels, self.boxes(keys, images.shape[-1] / images.shape[-2])[:, which], size)
        return self.colours(views, keys, which)

    def boxes(self, keys: np.ndarray, aspect: float | Sequence[float] = 1.0) -> Float[Tensor, "b v 4"]:
        """Left, top, width and height of every crop as shares of the image; a mirrored one has a negative width.

        `aspect` is width / height of the images; of the whole of one that is not square the middle is taken.
        """
        # in numpy: one image at a time, these are many small steps
        u = uniforms(keys, "crop", self.total * 5).numpy().reshape(len(keys), self.total, 5)
        shape = np.broadcast_to(np.asarray(aspect, dtype=np.float32), len(keys))[:, None]
        least, most = np.array([self.scale] * self.num + [self.local_scale] * self.local, dtype=np.float32).T
        # ratios of shares, as far as an area can have them inside the image: a wider or higher one would leave it
        flattest, widest = np.float32(self.ratio[0]) / shape, np.float32(self.ratio[1]) / shape
        nearest = np.clip(np.float32(1), flattest, widest)
        area = np.minimum(least + u[..., 0] * (most - least), np.minimum(nearest, 1 / nearest))
        low, high = np.log(np.maximum(area, flattest)), np.log(np.minimum(1 / area, widest))
        low = np.minimum(low, high)
        stretch = np.exp(low + u[..., 1] * (high - low))
        width, height = np.minimum(np.sqrt(area * stretch), 1), np.minimum(np.sqrt(area / stretch), 1)
        left, top = u[..., 2] * (1 - width), u[..., 3] * (1 - height)
        if (whole := least == 1).any():
            width = np.where(whole, np.minimum(1 / shape, 1), width)
            height = np.where(whole, np.minimum(shape, 1), height)
            left, top = np.where(whole, (1 - width) / 2, left), np.where(whole, (1 - height) / 2, top)
        mirrored = u[..., 4] < self.flip
        left, width = np.where(mirrored, left + width, left), np.where(mirrored, -width, width)
        return torch.from_numpy(np.stack([left, top, width, height], -1).astype(np.float32))

    def colours(
        self, views: Float[Tensor, "bv c s s"], keys: np.ndarray, which: slice = ALL
    ) -> Float[Tensor, "bv c s s"]:
        """The changes after the cut, view by view; `views` may be written to."""

        def draw(name: str, num: int) -> Tensor:
            return uniforms(keys, name, self.total * num).view(len(keys), self.total, num)[:, which].flatten(0, 1)

        if self.jitter:
            views = _jitter(views, draw("jitter", 5), self.jitter, self.saturation)
        if self.grayscale and views.shape[1] == 3:
            grey = draw("gray", 1)[:, 0] < self.grayscale
            views[grey] = luma(views[grey]).expand(-1, 3, -1, -1)
        if (blur := self._by_view(self.blur)[which].repeat(len(keys))).any():
            u = draw("blur", 2)
            most = min(2.0, max(0.2, views.shape[-1] / 56))
            chosen = u[:, 0] < blur
            views[chosen] = _blur(views[chosen], 0.1 + (most - 0.1) * u[chosen, 1])
        if (solarize := self._by_view(self.solarize)[which].repeat(len(keys))).any():
            chosen = draw("solarize", 1)[:, 0] < solarize
            views[chosen] = torch.where(views[chosen] >= 0.5, 1 - views[chosen], views[chosen])
        return views

    def _by_view(self, probability: float | tuple[float, ...]) -> Float[Tensor, " v"]:
        """The probability of every view."""
        if not isinstance(probability, tuple):
            probability = (probability,) * (self.num + 1)
        return torch.tensor([*probability[: self.num], *[probability[-1]] * self.local])


def crop(pixels: Float[Tensor, "b c h w"], boxes: Float[Tensor, "b v 4"], size: int) -> Float[Tensor, "bv c s s"]:
    """Cut every box out of its image and resize it, bilinearly between pixel centres."""
    num = boxes.shape[1]
    centres = (torch.arange(size) + 0.5) / size
    left, top, width, height = boxes.flatten(0, 1).unbind(-1)
    x = (left[:, None] + width[:, None] * centres) * 2 - 1
    y = (top[:, None] + height[:, None] * centres) * 2 - 1
    grid = torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], -1)
    # views of an image lie above each other: it is read once, not copied for each
    grid = grid.view(len(pixels), num * size, size, 2)
    cut = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return cut.unflatten(2, (num, size)).transpose(1, 2).flatten(0, 1)


def luma(pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
    """Grey values."""
    return (pixels * pixels.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)


def _resize(pixels: Tensor, size: int) -> Tensor:
    return F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)


def _jitter(views: Tensor, u: Tensor, strength: float, saturation: float | None = None) -> Tensor:
    """Each change maps a pixel's colour by a matrix and a shift, so all four are one matrix and one shift of a view."""
    strengths = torch.tensor([strength, strength, strength if saturation is None else saturation])
    factors = 1 + 0.8 * strengths * (2 * u[:, :3] - 1)
    brightness, contrast, colour = factors.view(-1, 3, 1, 1).unbind(1)
    channels = views.shape[1]
    same, weights = torch.eye(channels), torch.tensor(_LUMA if channels == 3 else (1.0,))
    mean = (views.mean((-2, -1)) @ weights).view(-1, 1, 1) * brightness
    later = same.expand(len(views), -1, -1)
    if channels == 3:
        turn = 2 * math.pi * 0.2 * strength * (2 * u[:, 3] - 1)
        later = (colour * same + (1 - colour) * weights) @ _turn(turn)
    done = (u[:, 4] < 0.8).view(-1, 1, 1)
    matrix = torch.where(done, later * contrast * brightness, same)
    shift = torch.where(done, later.sum(-1, keepdim=True) * (1 - contrast) * mean, 0)
    return torch.baddbmm(shift, matrix, views.flatten(2)).clamp_(0, 1).view_as(views)


def _turn(angle: Tensor) -> Tensor:
    """Rotation of colours about the grey axis (Rodrigues' formula)."""
    axis = 3**-0.5
    cross = torch.tensor([[0, -axis, axis], [axis, 0, -axis], [-axis, axis, 0]])
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    return cos * torch.eye(3) + sin * cross + (1 - cos) / 3


def _blur(views: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian along both axes, as matrices; at the border the weights that fall inside sum to 1."""
    place = torch.arange(views.shape[-1], dtype=views.dtype)
    weights = (-0.5 * ((place[:, None] - place) / sigma[:, None, None]) ** 2).softmax(-1)[:, None]
    return weights @ views @ weights.mT
