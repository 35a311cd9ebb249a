"""PEFT: adapters on the network beside heads that are trained in full."""

from typing import Any


def latent_lora_config(**kwargs: Any) -> Any:
    """A `peft.LoraConfig` that trains and saves the heads in full and puts no adapter on them.

    Args:
        kwargs: of `peft.LoraConfig`.
    """
    from peft import LoraConfig

    defaults = {"task_type": "CAUSAL_LM", "exclude_modules": r"(.*\.)?latent\..*", "modules_to_save": ["latent"]}
    return LoraConfig(**{**defaults, **kwargs})
