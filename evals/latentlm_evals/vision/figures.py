"""Pictures: what each depth tells of each factor, the pixels a linear map finds in it, and nearest neighbours."""

from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from latentlm.data.images import Pictures
from latentlm.data.images.scenes import LEVELS
from latentlm_evals.models.image_encoder import ImageEncoder
from latentlm_evals.vision.encode import pixels, side, states, unstandardised
from latentlm_evals.vision.pixels import images_of, linear_pixels, patches_of


def draw(folder: Path, result: dict, encoder: ImageEncoder, train: Pictures, test: Pictures, at: Any) -> list[Path]:
    """Write the pictures that the result has something for; their paths."""
    figures = {
        "vision_factors": factors(result),
        "vision_reconstructions": reconstructions(encoder, train.images[:200], test.images[:6]),
        "vision_neighbours": neighbours(encoder, train.images[:2000], test.images[:6], at),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        if figure is not None:
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], dpi=110, bbox_inches="tight", facecolor="white")
    return paths


def factors(result: dict) -> Figure | None:
    """Depth x factor: skill or R^2 of a linear readout; the floors are rows below the depths."""
    names = [name for level in LEVELS.values() for name in level]
    rows = [score for score in result["results"].values() if any(key.startswith("factor/") for key in score)]
    names = [name for name in names if any(f"factor/{name},none" in score for score in rows)]
    if not rows:
        return None
    values = np.array([[score.get(f"factor/{name},none", np.nan) for name in names] for score in rows])
    figure = Figure(figsize=(0.62 * len(names) + 2, 0.34 * len(rows) + 1.6), layout="constrained")
    axis = figure.subplots()
    shown = axis.imshow(values.clip(0, 1), cmap="viridis", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(rows)), [score["alias"] for score in rows])
    for (i, j), value in np.ndenumerate(values):
        axis.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color="k" if value > 0.6 else "w")
    groups = [sum(name in LEVELS[level] for name in names) for level in LEVELS]
    for edge in np.cumsum(groups)[:-1]:
        axis.axvline(edge - 0.5, color="w", linewidth=2)
    kinds = [score["alias"].split()[0] for score in rows]
    for i in range(1, len(kinds)):
        if kinds[i] != kinds[i - 1]:
            axis.axhline(i - 0.5, color="w", linewidth=2)
    axis.set_title("Factors read off linearly, % (skill over chance, R2)", loc="left", fontsize=10)
    figure.colorbar(shown, ax=axis, shrink=0.8)
    return figure


def reconstructions(encoder: ImageEncoder, train: np.ndarray, shown: np.ndarray) -> Figure:
    """Test images, and what a linear map of each patch's state makes of them at each depth."""
    read = [states(encoder, images, "patches") for images in (train, shown)]
    seen = [pixels(encoder, images) for images in (train, shown)]
    across = side(encoder, shown)
    values = [patches_of(part, across) for part in seen]
    columns = [("image", seen[1])]
    for depth in range(encoder.num_layers + 1):
        score, guess = linear_pixels(read[0][:, depth], values[0], read[1][:, depth], values[1])
        columns.append((f"depth {depth}\nR2 {score:.2f}", images_of(guess, seen[1].shape[1], across)))
    return _grid(columns, encoder)


def neighbours(encoder: ImageEncoder, train: np.ndarray, shown: np.ndarray, at: Any) -> Figure:
    """Test images, and the five training images whose state at the top is nearest by cosine."""
    keys, queries = (F.normalize(states(encoder, images, at)[:, -1], dim=1) for images in (train, shown))
    near = (queries @ keys.T).topk(min(5, len(keys)), dim=1).indices
    columns = [("image", pixels(encoder, shown))]
    columns += [(f"nearest {k + 1}", pixels(encoder, train[near[:, k].numpy()])) for k in range(near.shape[1])]
    return _grid(columns, encoder)


def _grid(columns: list[tuple[str, Tensor]], encoder: ImageEncoder) -> Figure:
    rows = len(columns[0][1])
    figure = Figure(figsize=(1.1 * len(columns), 1.1 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for j, (title, images) in enumerate(columns):
        axes[0, j].set_title(title, fontsize=8)
        for i in range(rows):
            picture = unstandardised(encoder, images[i]).permute(1, 2, 0).numpy()
            axes[i, j].imshow(picture if picture.shape[2] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=1)
            axes[i, j].axis("off")
    return figure
