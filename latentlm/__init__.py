"""Latent-prediction heads on intermediate hidden states beside next-token loss, for Hugging Face models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentlm.config import ConfigError
    from latentlm.dpo import LatentDPOTrainer
    from latentlm.grpo import LatentGRPOTrainer
    from latentlm.model import from_pretrained, get_latent_model, remove_latent
    from latentlm.network import latent_lora_config
    from latentlm.objective import Objective
    from latentlm.sft import LatentSFTTrainer
    from latentlm.trainer import LatentTrainer

__all__ = [
    "ConfigError",
    "LatentDPOTrainer",
    "LatentGRPOTrainer",
    "LatentSFTTrainer",
    "LatentTrainer",
    "Objective",
    "from_pretrained",
    "get_latent_model",
    "latent_lora_config",
    "remove_latent",
]

_HOME = {
    "ConfigError": "config",
    "LatentDPOTrainer": "dpo",
    "LatentGRPOTrainer": "grpo",
    "LatentSFTTrainer": "sft",
    "LatentTrainer": "trainer",
    "Objective": "objective",
    "from_pretrained": "model",
    "get_latent_model": "model",
    "latent_lora_config": "network",
    "remove_latent": "model",
}


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import: `latentlm --help` and a misspelt recipe should not wait for them
    if name not in _HOME:
        raise AttributeError(f"module 'latentlm' has no attribute '{name}'")
    return getattr(import_module(f"latentlm.{_HOME[name]}"), name)
