"""Where the parts of a network are, found by structure and never by the name of a model family."""

from latentlm.backbones.causal_lm import Backbone, find_backbone, hidden_state, readout

__all__ = ["Backbone", "find_backbone", "hidden_state", "readout"]
