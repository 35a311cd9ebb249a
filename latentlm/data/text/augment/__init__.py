"""Augmentations of text, one file each. The type union is the registry; a recipe lists them under ``data.augment``.

An augmentation is a frozen dataclass with one or both hooks of `base.Augmentation`. To add one: its file here, and its
name in the union below.
"""

from latentlm.data.text.augment.answer_noise import AnswerNoise
from latentlm.data.text.augment.base import Draws, Needs, Transform
from latentlm.data.text.augment.continuation import Continuation
from latentlm.data.text.augment.distractor import Distractor
from latentlm.data.text.augment.gist_mask import GistMask
from latentlm.data.text.augment.reverse_words import ReverseWords
from latentlm.data.text.augment.span_crop import SpanCrop
from latentlm.data.text.augment.stages import AugmentedDataset, augment_documents, augment_examples, unmet_need
from latentlm.data.text.augment.unit_dropout import UnitDropout

Augmentation = SpanCrop | Continuation | Distractor | ReverseWords | AnswerNoise | GistMask | UnitDropout

__all__ = [
    "AnswerNoise",
    "Augmentation",
    "AugmentedDataset",
    "Continuation",
    "Distractor",
    "Draws",
    "GistMask",
    "Needs",
    "ReverseWords",
    "SpanCrop",
    "Transform",
    "UnitDropout",
    "augment_documents",
    "augment_examples",
    "unmet_need",
]
