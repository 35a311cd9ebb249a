"""Latent-prediction heads on intermediate hidden states beside next-token loss, for Hugging Face models."""

from latentlm.config import ConfigError
from latentlm.model import from_pretrained, get_latent_model, remove_latent
from latentlm.objective import Objective

__all__ = ["ConfigError", "Objective", "from_pretrained", "get_latent_model", "remove_latent"]
