"""How much of its pixels a patch still holds at each depth: a linear map, and a small decoder that sees all patches."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentlm_evals.probes.frozen_features import ridge
from latentlm_evals.statistics.scores import r_squared


def patches_of(images: Tensor, side: int) -> Tensor:
    """Images in [0, 1] ``[n c h w]`` as ``[n p values]``, with `side` x `side` patches in raster order."""
    n, c, h, w = images.shape
    if h % side or w % side:
        raise ValueError(f"images of {h} x {w} pixels do not divide into {side} x {side} patches")
    cut = images.reshape(n, c, side, h // side, side, w // side)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(n, side * side, -1)


def images_of(patches: Tensor, channels: int, side: int) -> Tensor:
    """The inverse of `patches_of`."""
    n, _, values = patches.shape
    height = int((values // channels) ** 0.5)
    grid = patches.reshape(n, side, side, channels, height, height)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(n, channels, side * height, side * height)


def linear_pixels(train: Tensor, train_pixels: Tensor, test: Tensor, test_pixels: Tensor) -> tuple[float, Tensor]:
    """R^2 and guesses ``[n p values]`` of a fresh linear map from a patch's feature to its own pixels."""
    guess = ridge(train.flatten(0, 1), train_pixels.flatten(0, 1))(test.flatten(0, 1)).view_as(test_pixels)
    return r_squared(guess.flatten(0, 1), test_pixels.flatten(0, 1)), guess


class Decoder(nn.Module):
    """One transformer block of its own over all patches of an image, between two linear maps."""

    def __init__(self, dim: int, num_patches: int, values: int, width: int = 64):
        super().__init__()
        self.norm, self.enter = nn.LayerNorm(dim), nn.Linear(dim, width)
        self.place = nn.Parameter(torch.zeros(num_patches, width))
        self.block = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.leave = nn.Linear(width, values)

    def forward(self, patches: Tensor) -> Tensor:
        """Pixels ``[n p values]`` of features ``[n p d]``."""
        return self.leave(self.block(self.enter(self.norm(patches)) + self.place))


def decoded_pixels(
    train: Tensor, train_pixels: Tensor, test: Tensor, test_pixels: Tensor, *, steps: int = 200, seed: int = 0
) -> tuple[float, Tensor]:
    """R^2 and guesses of a fresh `Decoder`, trained with Adam on batches of 64 images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = Decoder(train.shape[-1], train.shape[1], train_pixels.shape[-1])
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(decoder.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(steps):
        batch = torch.randint(len(train), (64,), generator=draw)
        F.mse_loss(decoder(train[batch]), train_pixels[batch]).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    with torch.no_grad():
        guess = decoder.eval()(test)
    return r_squared(guess.flatten(0, 1), test_pixels.flatten(0, 1)), guess
