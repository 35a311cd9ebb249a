"""A network and its tokenizer from a folder or a hub name; what cannot be loaded is one line that names it."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from latentlm.backbones.load import load_config, load_weights, readable, with_adapter
from latentlm.export.export import ADAPTER, export

CAUSAL = frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())


def load(name: str, device: str | None = None) -> tuple[Any, PreTrainedTokenizerBase]:
    """Model and tokenizer of a checkpoint; ValueError if it was not saved with a next-token head."""
    place = device_of(device)
    with readable(name):
        model = load_adapter(Path(name), place, CAUSAL) if is_adapter(name) else _causal(name, place)
    return model.to(device=place), load_tokenizer(name)


def _causal(name: str, place: torch.device) -> Any:
    config = load_config(name)
    saved = config.architectures or []
    # AutoModelForCausalLM would give such a checkpoint a fresh random head and scores without a meaning
    if saved and not set(saved) & CAUSAL:
        raise ValueError(f"{name}: holds a {saved[0]}, not a causal language model: save it with its next-token head")
    return load_weights(AutoModelForCausalLM, name, dtype=dtype_of(config, place))


def is_adapter(name: str) -> bool:
    """Whether it is a folder that holds a PEFT adapter."""
    return (Path(name) / ADAPTER).is_file()


def load_adapter(folder: Path, place: torch.device, heads: frozenset[str] | None = None) -> Any:
    """The base of an adapter with the adapter merged into it; `heads`: ValueError if the base has none of these."""
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(str(folder))
    if "latent" in (getattr(config, "modules_to_save", None) or ()):
        with tempfile.TemporaryDirectory() as merged:  # PEFT would look for the heads in the base model
            export(folder, Path(merged), merge=True)
            return load_weights(AutoModelForCausalLM, merged, dtype=torch.float32)
    base = config.base_model_name_or_path
    if base is None:
        raise ValueError(f"{folder}: its adapter_config.json names no base model: add base_model_name_or_path")
    saved = load_config(base).architectures or []
    if heads and saved and not set(saved) & heads:
        raise ValueError(f"{folder}: its base {base} is a {saved[0]}, not a causal language model")
    # weights of an adapter are named as they were in the class it was trained in
    kind = AutoModelForCausalLM if heads or config.task_type == "CAUSAL_LM" else AutoModel
    # merged in half precision a small update is rounded away
    return with_adapter(load_weights(kind, base, dtype=torch.float32), folder).merge_and_unload()


def dtype_of(config: Any, place: torch.device) -> torch.dtype:
    """That of the files; on a CPU float32, where half precision is slow."""
    return torch.float32 if place.type == "cpu" else getattr(config, "dtype", None) or torch.float32


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer beside the weights; of an adapter that has none, that of its run's model or of its base."""
    places = [name]
    if is_adapter(name) and not (Path(name) / "tokenizer_config.json").is_file():
        run = next((f for f in Path(name).absolute().parents[:2] if (f / "recipe.yaml").is_file()), None)
        base = json.loads((Path(name) / ADAPTER).read_text(encoding="utf-8")).get("base_model_name_or_path")
        places = [str(run / "model")] if run and (run / "model" / "tokenizer_config.json").is_file() else []
        places += [base] if base else []
    try:
        return AutoTokenizer.from_pretrained(places[0] if places else name, trust_remote_code=False)
    except Exception as error:  # tokenizers has no type of error of its own
        reason = " ".join(str(error).split())[:150]
        told = "its tokenizer cannot be loaded; save the one it was trained with beside the weights"
        raise ValueError(f"{name}: {told} ({reason}...)") from error


def device_of(device: str | None) -> torch.device:
    """The device of an option; without one, the GPU if there is one."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # how a build without it says so depends on the device
        reason = str(error).split(".")[0].split("\n")[0]
        raise ValueError(f"device: {device} cannot be used here ({reason}); use cpu, or leave it out") from error
