"""Pictures: the pixels that a linear map finds in each depth, and nearest neighbours."""

from pathlib import Path

import numpy as np
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from latentlm.data.images import Pictures
from latentlm.report.figures.palette import png
from latentlm.whole_files import write_bytes
from latentlm_evals.models.image_encoder import ImageEncoder, Place
from latentlm_evals.vision.encode import pixels, side, states, unstandardised
from latentlm_evals.vision.pixels import images_of, linear_pixels, patches_of


def draw(folder: Path, encoder: ImageEncoder, train: Pictures, test: Pictures, at: Place) -> list[Path]:
    """Write the pictures; their paths. The report shows them, and draws the map of factors itself."""
    figures = {
        "vision_reconstructions": reconstructions(encoder, train.images[:200], test.images[:6]),
        "vision_neighbours": neighbours(encoder, train.images[:2000], test.images[:6], at),
    }
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        write_bytes(paths[-1], png(figure))
    return paths


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


def neighbours(encoder: ImageEncoder, train: np.ndarray, shown: np.ndarray, at: Place) -> Figure:
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
