"""Latent-prediction heads on intermediate hidden states beside next-token loss, for Hugging Face models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentlm import losses
    from latentlm.attach.api import from_pretrained, get_latent_model, image_collator, remove_latent
    from latentlm.attach.peft import latent_lora_config
    from latentlm.attach.state import latent_state
    from latentlm.components import predictors
    from latentlm.components.data_targets import Pixels, Tokens
    from latentlm.components.positions import Last, Next, Now
    from latentlm.components.tap import Tap
    from latentlm.components.targets import Ema, Frozen, Online
    from latentlm.components.token_embeddings import TokenEmbeddings
    from latentlm.components.units import Unit
    from latentlm.config.schema import ConfigError
    from latentlm.objective.level_table import Levels
    from latentlm.objective.objective import Objective
    from latentlm.objective.terms import Predict, Regularize
    from latentlm.objective.unit_levels import UnitLevel, UnitLevels
    from latentlm.trainers.dpo import LatentDPOTrainer
    from latentlm.trainers.grpo import LatentGRPOTrainer
    from latentlm.trainers.latent_trainer import LatentTrainer
    from latentlm.trainers.sft import LatentSFTTrainer
    from latentlm.trainers.units import with_units

__all__ = [
    "ConfigError",
    "Ema",
    "Frozen",
    "Last",
    "LatentDPOTrainer",
    "LatentGRPOTrainer",
    "LatentSFTTrainer",
    "LatentTrainer",
    "Levels",
    "Next",
    "Now",
    "Objective",
    "Online",
    "Pixels",
    "Predict",
    "Regularize",
    "Tap",
    "TokenEmbeddings",
    "Tokens",
    "Unit",
    "UnitLevel",
    "UnitLevels",
    "from_pretrained",
    "get_latent_model",
    "image_collator",
    "latent_lora_config",
    "latent_state",
    "losses",
    "predictors",
    "remove_latent",
    "with_units",
]

_HOME = {
    "ConfigError": "config.schema",
    "Ema": "components.targets",
    "Frozen": "components.targets",
    "Last": "components.positions",
    "LatentDPOTrainer": "trainers.dpo",
    "LatentGRPOTrainer": "trainers.grpo",
    "LatentSFTTrainer": "trainers.sft",
    "LatentTrainer": "trainers.latent_trainer",
    "Levels": "objective.level_table",
    "Next": "components.positions",
    "Now": "components.positions",
    "Objective": "objective.objective",
    "Online": "components.targets",
    "Pixels": "components.data_targets",
    "Predict": "objective.terms",
    "Regularize": "objective.terms",
    "Tap": "components.tap",
    "TokenEmbeddings": "components.token_embeddings",
    "Tokens": "components.data_targets",
    "Unit": "components.units",
    "UnitLevel": "objective.unit_levels",
    "UnitLevels": "objective.unit_levels",
    "from_pretrained": "attach.api",
    "get_latent_model": "attach.api",
    "image_collator": "attach.api",
    "latent_lora_config": "attach.peft",
    "latent_state": "attach.state",
    "remove_latent": "attach.api",
    "with_units": "trainers.units",
}
_MODULES = {"losses": "losses", "predictors": "components.predictors"}


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import: `latentlm --help` and a misspelt recipe should not wait for them
    if name in _MODULES:
        return import_module(f"latentlm.{_MODULES[name]}")
    if name not in _HOME:
        raise AttributeError(f"module 'latentlm' has no attribute '{name}'")
    try:
        home = import_module(f"latentlm.{_HOME[name]}")
    except ModuleNotFoundError as error:
        if error.name != "trl":
            raise
        raise ModuleNotFoundError(
            f"{name}: trl is not installed; it comes with: pip install 'latentlm[trl]'", name="trl"
        ) from None
    return getattr(home, name)
