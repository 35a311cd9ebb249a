"""Where the parts of a network are, found by structure and never by the name of a model family."""

from latentlm.backbones.blocks import Backbone, hidden_state
from latentlm.backbones.causal_lm import head_modules, readout
from latentlm.backbones.find import find_backbone
from latentlm.backbones.grid import Grid

__all__ = ["Backbone", "Grid", "find_backbone", "head_modules", "hidden_state", "readout"]
