"""A plain Hugging Face folder from a run: the trained network or its adapter, without heads, with a model card."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from latentlm.attach.api import CONFIG_KEY, from_pretrained, remove_latent
from latentlm.config.schema import ConfigError
from latentlm.export.model_card import write_card

ADAPTER = "adapter_config.json"


def export(run: Path, out: Path, merge: bool = False) -> None:
    """Write `out` from a run folder, a model folder that holds heads, or an adapter folder.

    What was trained as an adapter stays one, in PEFT's own format, unless it is to be merged into its base.

    Args:
        run: run folder (its ``adapter/``, else its ``model/``) or a folder written by `save_pretrained`.
        out: a folder that does not exist yet or is empty.
        merge: write the whole network with the adapter merged into it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"export: {out} is not empty; name a new folder")
    adapter = next((f for f in (run / "adapter", run) if (f / ADAPTER).is_file()), None)
    folder = run / "model" if (run / "model").is_dir() else run
    if adapter is None and not (folder / "config.json").is_file():
        raise ConfigError(f"export: {run} has no model yet (no config.json); finish the run or name a model folder")
    if merge and adapter is None:
        raise ConfigError(f"export: {run} has no adapter to merge; leave out --merge")
    objective = base = None
    if adapter is not None and not (merge and folder != run):
        base, folder = _base(adapter), adapter
        if merge:
            _merged(adapter, base, out)
        else:
            _plain_adapter(adapter, out)
    else:  # a run's own model has its adapter merged already
        objective = _plain_model(folder, out)
    words = next((f for f in (folder, run / "model") if (f / "tokenizer_config.json").is_file()), None)
    if words is not None:
        AutoTokenizer.from_pretrained(words).save_pretrained(out)
    if (folder / "preprocessor_config.json").is_file():
        shutil.copy(folder / "preprocessor_config.json", out)
    library = "transformers" if (out / "config.json").is_file() else "peft"
    # checkpoints and models lie one or two levels below their run
    home = next((f for f in (run, *run.absolute().parents[:2]) if (f / "recipe.yaml").is_file()), run)
    write_card(out, home, library, objective, base)


def _plain_model(folder: Path, out: Path) -> dict:
    config = AutoConfig.from_pretrained(folder)
    if not hasattr(config, CONFIG_KEY):
        raise ConfigError(f"export: {folder} holds no model with latent heads")
    model = from_pretrained(folder, dtype=getattr(config, "dtype", None) or torch.float32)
    remove_latent(model).save_pretrained(out)
    return getattr(config, CONFIG_KEY)["objective"]


def _plain_adapter(folder: Path, out: Path) -> None:
    """The adapter's files without what was trained beside it for the heads."""
    from safetensors.torch import load_file, save_file

    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise ConfigError(f"export: {folder} has no {weights.name}; save the adapter as safetensors")
    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value for name, value in load_file(weights).items() if ".latent." not in name},
        out / weights.name,
        metadata={"format": "pt"},
    )
    config = _read(folder / ADAPTER)
    others = [name for name in config.get("modules_to_save") or [] if name != "latent"]
    config |= {"modules_to_save": others or None, "inference_mode": True}
    if "latent" in str(config.get("exclude_modules")):
        config["exclude_modules"] = None
    if isinstance(names := config.get("target_modules"), list):
        config["target_modules"] = [name for name in names if ".latent." not in f".{name}"]
    (out / ADAPTER).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _merged(folder: Path, base: str, out: Path) -> None:
    from peft import PeftModel

    with tempfile.TemporaryDirectory() as plain:
        _plain_adapter(folder, Path(plain))
        model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), plain)
        model.merge_and_unload().save_pretrained(out)


def _base(folder: Path) -> str:
    """The base model that an adapter names, which has to be somewhere."""
    base = _read(folder / ADAPTER).get("base_model_name_or_path")
    if not base:
        raise ConfigError(f"export: the base of {folder} was made from scratch; export its run with --merge")
    if (Path(base).is_absolute() or base.startswith((".", "~"))) and not Path(base).exists():
        raise ConfigError(f"export: the base {base} of {folder} is not there; put it back or edit {ADAPTER}")
    return base


def _read(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"export: {file} is not JSON ({error}); take another checkpoint") from error
