"""PEFT: adapters on the network beside heads that are trained in full."""

import re
from typing import Any


def latent_lora_config(**kwargs: Any) -> Any:
    """A `peft.LoraConfig` that trains and saves the heads in full and puts no adapter on them.

    Args:
        kwargs: of `peft.LoraConfig`; the heads are added to ``modules_to_save`` and ``exclude_modules``. For a ViT give
            ``task_type=None``.
    """
    from peft import LoraConfig

    saved, excluded = kwargs.pop("modules_to_save", None) or [], kwargs.pop("exclude_modules", None)
    if not isinstance(excluded, str):  # peft compares names of a list with their ends
        excluded = "|".join(rf"(.*\.)?{re.escape(name)}" for name in excluded or ())
    pattern = r"(.*\.)?latent\..*"
    return LoraConfig(
        **{"task_type": "CAUSAL_LM", **kwargs},
        modules_to_save=[*(name for name in saved if name != "latent"), "latent"],
        exclude_modules=f"{pattern}|{excluded}" if excluded else pattern,
    )
