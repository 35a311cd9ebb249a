"""Image data: sources, views, masks, and the way to batches."""

from latentlm.data.images.augmentations import Views
from latentlm.data.images.collate import ImageCollator
from latentlm.data.images.dataset import ImageDataset, Images
from latentlm.data.images.masks import Blocks, InverseBlock, Mask, Random
from latentlm.data.images.scenes import Scenes
from latentlm.data.images.sources import Digits, FashionMnist, ImageFolder, Pictures

__all__ = [
    "Blocks",
    "Digits",
    "FashionMnist",
    "ImageCollator",
    "ImageDataset",
    "ImageFolder",
    "Images",
    "InverseBlock",
    "Mask",
    "Pictures",
    "Random",
    "Scenes",
    "Views",
]
