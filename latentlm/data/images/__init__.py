"""Image data: sources, views, masks, and the way to batches."""

from latentlm.data.images.augmentations import Views
from latentlm.data.images.collate import ImageCollator
from latentlm.data.images.dataset import ImageDataset, Images
from latentlm.data.images.folder import ImageFolder
from latentlm.data.images.hf_dataset import HfDataset, ImageStream
from latentlm.data.images.masks import Blocks, InverseBlock, Mask, Random
from latentlm.data.images.scenes import Scenes
from latentlm.data.images.sources import Digits, FashionMnist, Pictures

__all__ = [
    "Blocks",
    "Digits",
    "FashionMnist",
    "HfDataset",
    "ImageCollator",
    "ImageDataset",
    "ImageFolder",
    "ImageStream",
    "Images",
    "InverseBlock",
    "Mask",
    "Pictures",
    "Random",
    "Scenes",
    "Views",
]
