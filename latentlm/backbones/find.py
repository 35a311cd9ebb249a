"""Which kind of network it is, decided by what it reads."""

from torch import nn

from latentlm.backbones.blocks import Backbone, accepted
from latentlm.backbones.causal_lm import find_causal_lm
from latentlm.backbones.vit import find_vit


def find_backbone(model: nn.Module, layers_path: str | None = None) -> Backbone:
    """Find the parts of a causal LM or a ViT.

    Args:
        model: a `transformers` model, before PEFT and before torch.compile.
        layers_path: dotted name of the ModuleList of blocks, where the search fails or should be overruled.
    """
    known = accepted(model)
    return (find_vit if known.main_input_name.startswith("pixel_values") else find_causal_lm)(known, layers_path)
