"""A plain Hugging Face folder from a run: the trained network without heads, loadable without latentlm."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from latentlm.config import ConfigError
from latentlm.model import CONFIG_KEY, from_pretrained, remove_latent


def export(run: Path, out: Path) -> None:
    """Write `out` from a run folder or a model folder that holds heads.

    Args:
        run: run folder (its ``model/``) or folder written by `save_pretrained`.
        out: a folder that does not exist yet or is empty.
    """
    folder = run / "model" if (run / "model").is_dir() else run
    if not (folder / "config.json").exists():
        raise ConfigError(f"export: {run} has no model yet (no config.json); finish the run or name a model folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"export: {out} is not empty; name a new folder")
    config = AutoConfig.from_pretrained(folder)
    if not hasattr(config, CONFIG_KEY) or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(f"export: {folder} holds no causal LM with latent heads")
    model = from_pretrained(folder, dtype=getattr(config, "dtype", None) or torch.float32)
    remove_latent(model).save_pretrained(out)
    if (folder / "tokenizer_config.json").exists():
        AutoTokenizer.from_pretrained(folder).save_pretrained(out)
