"""Images to a batch: pixels of every view, what of them is seen, and the positions that an objective reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from latentlm.components.positions import At
from latentlm.config.schema import ConfigError
from latentlm.data.images.augmentations import ALL, Views, luma
from latentlm.data.images.decoding import EncodedImage
from latentlm.data.images.masks import Causal, Mask
from latentlm.data.images.stored import StoredImage, StreamedImage, cut

GLOBAL = {
    "cls_global",
    "cls_2",
    "matched_patches_2",
    "patches_1",
    "patches_2",
    "masked",
}  # sets that lie in global views


def image_sets(views: Views, mask: Mask | None) -> tuple[str, ...]:
    """Names of the index sets that such a batch can have."""
    paired = ("cls_1", "cls_2", "matched_patches_1", "matched_patches_2") if views.total > 1 else ()
    paired += ("patches_1", "patches_2") if views.num > 1 else ()
    return (
        "cls",
        "cls_global",
        *paired,
        "patches",
        *(("visible", "masked") if mask and not isinstance(mask, Causal) else ()),
    )


@dataclass(frozen=True)
class ImageCollator:
    """Batch of the views of images.

    After the run the row of an image holds, for each view, the class token and then its p patches in raster order, so
    patch j of view w is at ``w * (1 + p) + 1 + j``. The masks fall on global views only; local ones are seen whole.

    ====================  ==========  =========================================================================
    set                   shape       positions
    ====================  ==========  =========================================================================
    cls                   b 1 v       class tokens of all views, one group
    cls_global            b 1 num     those of the global views
    cls_1, _2             b pairs 1   class tokens of two different views, paired: any view and a global one
    matched_patches_1,    b pairs p   patches of the one view, and of the other those that the centres of these
    _2                                lie in; none where that is outside of the other view, or one of the two is
                                      not seen
    patches_1, _2         b pairs p   all patches of two different global views, paired
    patches               b v p       all patches, a group for each view
    visible               b v k       patches that the network sees
    masked                b num*g n   patches to predict, a group for each block of each global view
    ====================  ==========  =========================================================================

    Local views of another size (`local_size`) have fewer patches p, a group of theirs ends in -1; they come as
    latent.local_pixels [b*local c s s], and copies of the network do not run on them.

    Shapes:    pixel_values [b*v c s s], image-major; latent.views [v]; latent.taught [num], the views that copies of
               the network run on, where that is not all; with a mask latent.keep [b*v k] (patch numbers,
               -1 pads), latent.mask [b*v p] (True where a mask token stands) or latent.causal; sets as above, -1 pads.
    Checked:   tests/data/images/test_image_collate.py - every set points where it should, conservation, any batch
               alike.

    Args:
        views, mask: see their classes.
        size: side of the views, the model's image_size.
        patch: side of a patch.
        channels: 1 or 3; grey is repeated, colours become grey.
        mean, std: of each channel, or one for all; pixels are ``(x / 255 - mean) / std``.
        sets: names of the index sets to emit.
        taught: where copies of the network are read; if in global views alone, they need not run on the local ones.
    """

    views: Views
    mask: Mask | None
    size: int
    patch: int
    channels: int
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    sets: tuple[str, ...] = ()
    taught: tuple[At, ...] = ()

    def __post_init__(self) -> None:
        if self.patch < 1 or self.size % self.patch:
            raise ConfigError(f"model: image_size {self.size} is no multiple of patch_size {self.patch}; choose one")
        if self.channels not in (1, 3):
            raise ConfigError(f"model: num_channels {self.channels}; images have 1 or 3")
        if unknown := set(self.sets) - set(image_sets(self.views, self.mask)):
            have = ", ".join(image_sets(self.views, self.mask))
            raise ConfigError(f"data: gives no {', '.join(sorted(unknown))}; with these views and mask it has: {have}")
        if (small := self.views.local_size) is not None:
            if small % self.patch:
                raise ConfigError(f"data.views.local_size: {small} is no multiple of patch_size {self.patch}; use one")
            if local := [str(at) for at in self.taught if at not in GLOBAL]:
                raise ConfigError(
                    f"data.views.local_size: a copy of the network is read at {local[0]}, in local views as well, on "
                    f"which it does not run then; read it at {', '.join(sorted(GLOBAL))}, or leave local_size out"
                )
        if self.mask is not None:
            try:
                self.mask(np.arange(256, dtype=np.uint64), self.side)
            except ValueError as error:
                raise ConfigError(f"data.{error}") from error

    @property
    def side(self) -> int:
        """Patches along a side."""
        return self.size // self.patch

    def __call__(self, examples: Sequence[dict]) -> dict:
        """Batch of examples, each with an ``image`` and, where crops and masks are to be repeatable, a ``key``.

        An image is uint8 ``[c h w]``, a PIL image, a path, or the bytes of a file.
        """
        keys = np.array([example["key"] if "key" in example else _drawn() for example in examples], dtype=np.uint64)
        pixels, boxes = self._pixels([example["image"] for example in examples], keys)
        return self._batch(pixels, keys, boxes)

    def of_views(self, views: Sequence[Float[Tensor, "b c _ _"]]) -> dict:
        """Batch of views that other transforms have made and standardised; each is of all images, global ones first.

        Their masks are drawn from torch's generator. Sets that need to know where a crop lies in its image are refused.
        """
        if len(views) != self.views.total:
            raise ValueError(f"views: {len(views)} are given, the collator was made for {self.views.total}")
        if lost := [name for name in self.sets if name.startswith("matched_patches")]:
            raise ValueError(f"{lost[0]}: nothing says where these crops lie; have the collator make them from images")
        keys = np.array([_drawn() for _ in range(len(views[0]))], dtype=np.uint64)
        boxes = torch.zeros(len(keys), self.views.total, 4)
        pixels = [torch.stack(tuple(views[which]), 1).flatten(0, 1) for which, _ in self._groups]
        return self._batch(pixels, keys, boxes)

    def _batch(self, pixels: Sequence[Tensor], keys: np.ndarray, boxes: Float[Tensor, "b v 4"]) -> dict:
        latent = self._latent(keys, boxes)
        return {"pixel_values": pixels[0], "latent": latent | ({"local_pixels": pixels[1]} if len(pixels) > 1 else {})}

    def _latent(self, keys: np.ndarray, boxes: Float[Tensor, "b v 4"]) -> dict[str, Tensor]:
        """What of each view is seen, and the sets."""
        latent: dict[str, Tensor] = {"views": torch.arange(len(range(self.views.total)[self._groups[0][0]]))}
        seen, blocks = self._masks(keys)
        if isinstance(self.mask, Causal):
            latent["causal"] = torch.ones((), dtype=torch.bool)
        elif self.mask is not None:
            rows = seen[:, self._groups[0][0]].flatten(0, 1)
            latent |= {"keep": places(rows)} if self.mask.drop else {"mask": ~rows}
        if self.views.local and len(self._groups) == 1 and self.taught and set(self.taught) <= GLOBAL:
            latent["taught"] = torch.arange(self.views.num)
        return latent | {name: self._set(name, seen, blocks, boxes) for name in self.sets}

    @property
    def _groups(self) -> list[tuple[slice, int]]:
        """Which views have one size, and that size."""
        num, small = self.views.num, self.views.local_size
        return [(ALL, self.size)] if small is None else [(slice(num), self.size), (slice(num, None), small)]

    @property
    def _local_side(self) -> int:
        """Patches along a side of a local view."""
        return (self.views.local_size or self.size) // self.patch

    def _pixels(self, images: Sequence[Any], keys: np.ndarray) -> tuple[list[Tensor], Float[Tensor, "b v 4"]]:
        """Standardised views, those of one size together, and where in their images all of them lie."""
        if all(isinstance(image, np.ndarray) and image.shape == images[0].shape for image in images):
            held = torch.from_numpy(np.stack(images))
            views = [self.views(held, keys, size, which) for which, size in self._groups]
            boxes = self.views.boxes(keys, held.shape[-1] / held.shape[-2])
        else:
            cuts = [self._cut(image, keys[i : i + 1]) for i, image in enumerate(images)]
            boxes = torch.cat([box for _, box in cuts])
            groups = [
                (which, torch.stack([each for cut, _ in cuts for each in cut[which]])) for which, _ in self._groups
            ]
            if not self.views.recolours:
                return [self._standardised(cut, 255) for _, cut in groups], boxes
            views = [self.views.colours(cut.float().div_(255), keys, which) for which, cut in groups]
        return [self._standardised(each) for each in views], boxes

    def _standardised(
        self, views: Float[Tensor, "bv k s s"] | UInt8[Tensor, "bv k s s"], most: int = 1
    ) -> Float[Tensor, "bv c s s"]:
        """Values from 0 to `most`, standardised; a pass over all pixels costs as much as a change of colour."""
        if views.shape[1] != self.channels:
            views = luma(views) if self.channels == 1 else views.repeat(1, 3, 1, 1)
        mean, std = (torch.tensor(values).view(-1, 1, 1).mul_(most) for values in (self.mean, self.std))
        return views.float().sub_(mean).div_(std)

    def _cut(self, image: Any, key: np.ndarray) -> tuple[list[Tensor], Float[Tensor, "1 v 4"]]:
        """Views of one image, cut as soon as it is decoded: it need not be kept."""

        def views(opened: EncodedImage) -> tuple[list[Tensor], Tensor]:
            boxes = self.views.boxes(key, opened.aspect)
            sizes = [self.size] * self.views.num + [self.views.local_size or self.size] * self.views.local
            return cut(opened, boxes[0].tolist(), sizes, "L" if self.channels == 1 else "RGB"), boxes

        if isinstance(image, StoredImage | StreamedImage):
            return image.read(views)
        if isinstance(image, np.ndarray):
            from PIL import Image

            image = Image.fromarray(image.transpose(1, 2, 0).squeeze())
        return views(EncodedImage(image))

    def _masks(self, keys: np.ndarray) -> tuple[Bool[Tensor, "b v p"], Bool[Tensor, "b num g p"]]:
        num, patches = self.views.num, self.side**2
        seen = torch.ones(len(keys), self.views.total, patches, dtype=torch.bool)
        seen[:, num:, self._local_side**2 :] = False  # there are none
        if self.mask is None:
            return seen, seen.new_zeros(len(keys), num, 1, patches)
        # every view has numbers of its own, also where the same example is masked twice
        own = (keys[:, None] + np.arange(num, dtype=np.uint64)).reshape(-1)
        there, blocks = self.mask(own, self.side)
        seen[:, :num] = there.view(len(keys), num, patches)
        return seen, blocks.unflatten(0, (len(keys), num))

    def _set(self, name: str, seen: Tensor, blocks: Tensor, boxes: Tensor) -> Int[Tensor, "b g n"]:
        b, v, p = seen.shape
        num, counts = self.views.num, torch.full((v,), p)
        counts[num:] = self._local_side**2
        first = (1 + counts).cumsum(0) - counts - 1  # the class tokens
        if name == "cls":
            return first.expand(b, 1, v)
        if name == "cls_global":
            return first[:num].expand(b, 1, num)
        one, other = torch.tensor([(w, o) for o in range(num) for w in range(v) if w != o]).view(-1, 2).unbind(1)
        if name in ("cls_1", "cls_2"):
            return first[one if name == "cls_1" else other, None].expand(b, -1, 1)
        if name in ("matched_patches_1", "matched_patches_2"):
            there = torch.full((b, len(one), p), -1)
            for pick, side in ((one < num, self.side), (one >= num, self._local_side)):
                there[:, pick, : side**2] = same_place(boxes[:, one[pick]], boxes[:, other[pick]], side, self.side)
            both = (there >= 0) & seen[:, one] & seen[:, other].gather(2, there.clamp(min=0))
            found, of = (torch.arange(p), one) if name == "matched_patches_1" else (there, other)
            return torch.where(both, found + first[of, None] + 1, -1)
        if name in ("patches_1", "patches_2"):
            of = (one if name == "patches_1" else other)[one < num]
            return (first[of, None] + 1 + torch.arange(p)).expand(b, -1, p)
        if name == "patches":
            every = torch.arange(p).expand(v, p)
            return torch.where(every < counts[:, None], first[:, None] + 1 + every, -1).expand(b, v, p)
        if name == "visible":
            return _shift(places(seen.flatten(0, 1)).unflatten(0, (b, v)), first[:, None] + 1)
        found = places(blocks.flatten(0, 2)).unflatten(0, blocks.shape[:3])
        return _shift(found, first[:num, None, None] + 1).flatten(1, 2)


def same_place(
    one: Float[Tensor, "b g 4"], other: Float[Tensor, "b g 4"], own_side: int, side: int
) -> Int[Tensor, "b g p"]:
    """For every patch of one crop the patch of the other that its centre falls in, -1 outside; boxes as in `Views`.

    `own_side` and `side` are the patches along a side of the one and of the other.
    """
    centre = (torch.arange(own_side) + 0.5) / own_side
    found = []
    for axis in (0, 1):  # of a mirrored crop the width is negative: its first column is its right edge
        place = one[..., axis, None] + one[..., axis + 2, None] * centre
        found.append(((place - other[..., axis, None]) / other[..., axis + 2, None] * side).floor().long())
    column, row = found[0][..., None, :], found[1][..., :, None]
    inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
    return torch.where(inside, row * side + column, -1).flatten(-2)


def places(chosen: Bool[Tensor, "b p"]) -> Int[Tensor, "b k"]:
    """Numbers of the chosen columns of each row, in order, -1 pads; k is the most that a row has, at least 1."""
    order = (~chosen).to(torch.uint8).argsort(dim=1, stable=True)
    num = chosen.sum(1)
    kept = order[:, : max(int(num.max()), 1)]
    return torch.where(torch.arange(kept.shape[1]) < num[:, None], kept, -1)


def _drawn() -> int:
    """A key from torch's own generator, which a loader's workers seed."""
    return int(torch.randint(2**62, ()))


def _shift(index: Tensor, by: Tensor) -> Tensor:
    return torch.where(index >= 0, index + by, -1)
