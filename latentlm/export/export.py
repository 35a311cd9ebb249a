"""A plain Hugging Face folder from a run: the trained network or its adapter, without heads, with a model card."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from latentlm.attach.api import CONFIG_KEY, from_pretrained, remove_latent
from latentlm.backbones.load import load_config, load_weights, readable, with_adapter
from latentlm.config.run_files import RECIPE, is_finished, unfinished
from latentlm.config.schema import ConfigError
from latentlm.export.model_card import write_card
from latentlm.whole_files import is_empty, read_json, whole_folder, write_json

ADAPTER = "adapter_config.json"


def export(run: Path, out: Path, merge: bool = False, dtype: torch.dtype | None = None) -> None:
    """Write `out` from a run folder, a model folder that holds heads, or an adapter folder.

    What was trained as an adapter stays one, in PEFT's own format, unless it is to be merged into its base.

    Args:
        run: run folder (its ``adapter/``, else its ``model/``) or a folder written by `save_pretrained`.
        out: a folder that does not exist yet or is empty.
        merge: write the whole network with the adapter merged into it.
        dtype: of the weights written; by default that of the files, and float32 where an adapter is merged: bfloat16
            has steps larger than most of what a short fine-tuning changes.
    """
    if not is_empty(out):
        raise ConfigError(f"export: {out} is not empty; name a new folder")
    # a longer training that is not at its end has the model of the shorter one
    if (run / RECIPE).is_file() and (run / "model").is_dir() and not is_finished(run):
        raise ConfigError(f"export: {unfinished(run)}")
    with whole_folder(out) as folder:
        _write(run, folder, out.resolve().name, merge, dtype)


def _write(run: Path, out: Path, name: str, merge: bool, dtype: torch.dtype | None) -> None:
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
            _merged(adapter, base, out, dtype)
        else:
            _plain_adapter(adapter, out)
    else:  # a run's own model has its adapter merged already
        objective = _plain_model(folder, out, dtype)
    words = next((f for f in (folder, run / "model") if (f / "tokenizer_config.json").is_file()), None)
    if words is not None:
        with readable(words):
            AutoTokenizer.from_pretrained(words, trust_remote_code=False).save_pretrained(out)
    if (folder / "preprocessor_config.json").is_file():
        shutil.copy(folder / "preprocessor_config.json", out)
    library = "transformers" if (out / "config.json").is_file() else "peft"
    # checkpoints and models lie one or two levels below their run
    home = next((f for f in (run, *run.absolute().parents[:2]) if (f / RECIPE).is_file()), run)
    step = _step(folder)
    if step is None and home != run and not is_finished(home):
        home = run  # weights of an earlier end: what the run says now is not about them
    write_card(out, home, library, objective, base, name=name, step=step)


def _step(folder: Path) -> int | None:
    """Of a checkpoint; None of other folders."""
    state = folder / "trainer_state.json"
    return int(read_json(state)["global_step"]) if state.is_file() else None


def _plain_model(folder: Path, out: Path, dtype: torch.dtype | None) -> dict:
    config = load_config(folder)
    if not hasattr(config, CONFIG_KEY):
        raise ConfigError(f"export: {folder} holds no model with latent heads")
    model: Any = from_pretrained(folder, dtype=getattr(config, "dtype", None) or torch.float32)
    remove_latent(model).to(dtype=dtype).save_pretrained(out)
    return getattr(config, CONFIG_KEY)["objective"]


def _plain_adapter(folder: Path, out: Path) -> None:
    """The adapter's files without what was trained beside it for the heads."""
    from safetensors.torch import load_file, save_file

    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise ConfigError(f"export: {folder} has no {weights.name}; save the adapter as safetensors")
    with readable(folder):
        kept = {name: value for name, value in load_file(weights).items() if ".latent." not in name}
    save_file(kept, out / weights.name, metadata={"format": "pt"})
    config = read_json(folder / ADAPTER)
    others = [name for name in config.get("modules_to_save") or [] if name != "latent"]
    config |= {"modules_to_save": others or None, "inference_mode": True}
    if "latent" in str(config.get("exclude_modules")):
        config["exclude_modules"] = None
    if isinstance(names := config.get("target_modules"), list):
        config["target_modules"] = [name for name in names if ".latent." not in f".{name}"]
    write_json(out / ADAPTER, config)


def _merged(folder: Path, base: str, out: Path, dtype: torch.dtype | None) -> None:
    with tempfile.TemporaryDirectory() as plain:
        _plain_adapter(folder, Path(plain))
        model = with_adapter(load_weights(AutoModelForCausalLM, base, dtype=torch.float32), plain, folder)
        model.merge_and_unload().to(dtype=dtype).save_pretrained(out)


def _base(folder: Path) -> str:
    """The base model that an adapter names, which has to be somewhere."""
    base = read_json(folder / ADAPTER).get("base_model_name_or_path")
    if not base:
        raise ConfigError(f"export: the base of {folder} was made from scratch; export its run with --merge")
    if (Path(base).is_absolute() or base.startswith((".", "~"))) and not Path(base).exists():
        raise ConfigError(f"export: the base {base} of {folder} is not there; put it back or edit {ADAPTER}")
    return base
