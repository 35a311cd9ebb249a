"""Mistakes in a batch of images that would train without a word, told at the first steps.

Letters: ``b`` images, ``v`` views, ``p`` patches, ``r`` rows of pixels (``b * v``), ``t`` positions (``v * (1 + p)``).
"""

import warnings

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from latentlm.backbones.grid import NO_SETS, Grid
from latentlm.objective.index_sets import sets_read
from latentlm.objective.objective import Objective

STEPS = 8  # forwards that are looked at: each look waits for the device
HOW = "make batches with latentlm.image_collator(model, views, mask)"


def check_image_batch(
    pixels: Tensor | None, latent: dict[str, Tensor] | None, grid: Grid, objective: Objective
) -> None:
    """Refuse sets that are missing or point to the wrong patches; warn of crops in the wrong order and of no masks.

    Checked:   tests/monitor/test_image_batches.py - every mistake, and that no batch of the collator is one.
    """
    latent = latent or {}
    wanted = {at: name for name, term in objective.terms.items() for at in sets_read(term)}
    if missing := [at for at in wanted if at not in latent]:
        terms = ", ".join(dict.fromkeys(wanted[at] for at in missing))
        raise ValueError(f"latent: the batch has no {', '.join(missing)}, which {terms} reads; {HOW}")
    if not isinstance(pixels, Tensor):
        return
    views = len(latent["views"]) if "views" in latent else 1
    rows, columns = grid.shape(pixels)
    p, sets = rows * columns, {name: value for name, value in latent.items() if name not in (*NO_SETS, "segments")}
    local = _local_positions(latent, grid, len(pixels) // views)
    for name, value in sets.items():
        _check_set(name, value, len(pixels), views, p, local)
    seen = _seen(latent, len(pixels) // views, views, p)
    for name, must in (("visible", True), ("masked", False)):
        if name in wanted and name in sets:
            index = sets[name].flatten(1)
            _check_patches(name, torch.where(index < views * (1 + p), index, -1), seen, must, p)
    if "masked" in wanted and "masked" in sets and bool((sets["masked"] < 0).all()):
        warnings.warn(
            "latent.masked: no image of this batch has a masked patch, so terms that predict them add nothing; raise "
            "the mask's probability or the batch",
            stacklevel=2,
        )
    if views > 1 and _is_view_major(pixels, views):
        warnings.warn(
            f"pixel_values: row i looks like row i + {len(pixels) // views}, not like the next one: the {views} views "
            "of an image must be adjacent rows; use torch.stack(views, 1).flatten(0, 1), not torch.cat(views)",
            stacklevel=2,
        )


def _local_positions(latent: dict[str, Tensor], grid: Grid, b: int) -> int:
    """Positions of an image that lie in local views of their own size."""
    if (small := latent.get("local_pixels")) is None:
        return 0
    rows, columns = grid.shape(small)
    return len(small) // b * (1 + rows * columns)


def _check_set(name: str, value: Tensor, num_rows: int, views: int, p: int, local: int) -> None:
    if num_rows % views or value.shape[0] != num_rows // views:
        raise ValueError(
            f"latent.{name}: {value.shape[0]} rows, but pixel_values are {num_rows} rows of {views} views an image; "
            "latent['views'] counts the views, torch.arange(2) for two"
        )
    if int(value.max()) >= views * (1 + p) + local:
        raise ValueError(
            f"latent.{name}: position {int(value.max())} is not among the {views * (1 + p)} of an image: a class token "
            f"and {p} patches for each of {views} views"
        )


def _seen(latent: dict[str, Tensor], b: int, views: int, p: int) -> Bool[Tensor, "b t"]:
    """Which positions the network sees."""
    if "keep" in latent:
        keep = latent["keep"]
        if int(keep.max()) >= p:
            raise ValueError(f"latent.keep: patch {int(keep.max())} of {p}; it holds patch numbers, 0 to {p - 1}")
        there = torch.zeros(len(keep), p + 1, dtype=torch.bool, device=keep.device)
        patches = there.scatter(1, torch.where(keep >= 0, keep, p), True)[:, :p]
    elif "mask" in latent:
        patches = ~latent["mask"].bool()
    else:
        return torch.ones(b, views * (1 + p), dtype=torch.bool)
    return torch.cat([patches.new_ones(len(patches), 1), patches], 1).view(b, -1)


def _check_patches(name: str, index: Tensor, seen: Tensor, must: bool, p: int) -> None:
    there = index >= 0
    if bool((there & (index % (1 + p) == 0)).any()):
        raise ValueError(
            f"latent.{name}: holds a class token; patch j of view w is at position w * {1 + p} + 1 + j (is 1 missing?)"
        )
    found = seen.to(index.device).gather(1, index.clamp(min=0))
    if bool((there & (found != must)).any()):
        why = (
            "holds patches that keep or mask hides from the network"
            if must
            else "holds patches that the network sees, so the answer is in its input"
        )
        raise ValueError(f"latent.{name}: {why}; patch j of view w is at position w * {1 + p} + 1 + j")


@torch.no_grad()
def _is_view_major(pixels: Float[Tensor, "r c h w"], views: int) -> bool:
    """Whether coarse colours say that rows i and i + b show one image, and adjacent rows do not.

    Crops whose colours say nothing are not found out: this can only be told where images differ.
    """
    b = len(pixels) // views
    if b < 8:
        return False
    coarse = F.adaptive_avg_pool2d(pixels.float(), 2).flatten(1)
    coarse = (coarse - coarse.mean(0)) / coarse.std(0).clamp(min=1e-6)
    apart, place = torch.cdist(coarse, coarse), torch.arange(len(pixels), device=pixels.device)
    other = place[:, None] != place
    adjacent = apart[(place[:, None] // views == place // views) & other].view(len(pixels), -1).mean(1)
    strided = apart[(place[:, None] % b == place % b) & other].view(len(pixels), -1).mean(1)
    closer = (strided < adjacent).double().mean()
    is_sure = (closer - 0.5) * 2 * len(pixels) ** 0.5 > 3  # three deviations of a coin
    return bool(is_sure & (strided.mean() < 0.8 * adjacent.mean()))
