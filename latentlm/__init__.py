"""Latent-prediction heads on intermediate hidden states beside next-token loss, for Hugging Face models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentlm.attach.api import from_pretrained, get_latent_model, remove_latent
    from latentlm.attach.peft import latent_lora_config
    from latentlm.config.schema import ConfigError
    from latentlm.objective.objective import Objective
    from latentlm.trainers.dpo import LatentDPOTrainer
    from latentlm.trainers.grpo import LatentGRPOTrainer
    from latentlm.trainers.latent_trainer import LatentTrainer
    from latentlm.trainers.sft import LatentSFTTrainer

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
    "ConfigError": "config.schema",
    "LatentDPOTrainer": "trainers.dpo",
    "LatentGRPOTrainer": "trainers.grpo",
    "LatentSFTTrainer": "trainers.sft",
    "LatentTrainer": "trainers.latent_trainer",
    "Objective": "objective.objective",
    "from_pretrained": "attach.api",
    "get_latent_model": "attach.api",
    "latent_lora_config": "attach.peft",
    "remove_latent": "attach.api",
}


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import: `latentlm --help` and a misspelt recipe should not wait for them
    if name not in _HOME:
        raise AttributeError(f"module 'latentlm' has no attribute '{name}'")
    try:
        module = import_module(f"latentlm.{_HOME[name]}")
    except ModuleNotFoundError as error:
        if error.name != "trl":
            raise
        raise ModuleNotFoundError(
            f"{name}: trl is not installed; it comes with: pip install 'latentlm[trl]'", name="trl"
        ) from None
    return getattr(module, name)
