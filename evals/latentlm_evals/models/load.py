"""A network and its tokenizer from a folder or a hub name; what cannot be loaded is one line that names it."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from latentlm.export.export import ADAPTER, export

CAUSAL = frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())


def load(name: str, device: str | None = None) -> tuple[Any, PreTrainedTokenizerBase]:
    """Model and tokenizer of a checkpoint; ValueError if it was not saved with a next-token head."""
    place = device_of(device)
    with readable(name):
        model = load_adapter(Path(name), place, CAUSAL) if is_adapter(name) else _causal(name, place)
    return model.to(device=place), load_tokenizer(name)


def _causal(name: str, place: torch.device) -> Any:
    saved = AutoConfig.from_pretrained(name).architectures or []
    # AutoModelForCausalLM would give such a checkpoint a fresh random head and scores without a meaning
    if saved and not set(saved) & CAUSAL:
        raise ValueError(f"{name}: holds a {saved[0]}, not a causal language model: save it with its next-token head")
    model, report = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **_dtype(place))
    check_whole(name, report["missing_keys"])
    return model


def is_adapter(name: str) -> bool:
    """Whether it is a folder that holds a PEFT adapter."""
    return (Path(name) / ADAPTER).is_file()


def load_adapter(folder: Path, place: torch.device, heads: frozenset[str] | None = None) -> Any:
    """The base of an adapter with the adapter merged into it; `heads`: ValueError if the base has none of these."""
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(folder)
    if "latent" in (getattr(config, "modules_to_save", None) or ()):
        with tempfile.TemporaryDirectory() as merged:  # PEFT would look for the heads in the base model
            export(folder, Path(merged), merge=True)
            return AutoModelForCausalLM.from_pretrained(merged, **_dtype(place))
    base = config.base_model_name_or_path
    saved = AutoConfig.from_pretrained(base).architectures or []
    if heads and saved and not set(saved) & heads:
        raise ValueError(f"{folder}: its base {base} is a {saved[0]}, not a causal language model")
    # weights of an adapter are named as they were in the class it was trained in
    kind = AutoModelForCausalLM if heads or config.task_type == "CAUSAL_LM" else AutoModel
    return PeftModel.from_pretrained(kind.from_pretrained(base, **_dtype(place)), folder).merge_and_unload()


def _dtype(place: torch.device) -> dict[str, torch.dtype]:
    # half precision is slow on a CPU, and an adapter merged in it is rounded
    return {"dtype": torch.float32} if place.type == "cpu" else {}


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer beside the weights; of an adapter that has none, that of its run's model or of its base."""
    places = [name]
    if is_adapter(name) and not (Path(name) / "tokenizer_config.json").is_file():
        run = next((f for f in Path(name).absolute().parents[:2] if (f / "recipe.yaml").is_file()), None)
        base = json.loads((Path(name) / ADAPTER).read_text(encoding="utf-8")).get("base_model_name_or_path")
        places = [str(run / "model")] if run and (run / "model" / "tokenizer_config.json").is_file() else []
        places += [base] if base else []
    try:
        return AutoTokenizer.from_pretrained(places[0] if places else name)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:150]
        told = "its tokenizer cannot be loaded; save the one it was trained with beside the weights"
        raise ValueError(f"{name}: {told} ({reason}...)") from error


def check_whole(name: str, missing: Any) -> None:
    """Refuse a checkpoint that lacks weights: they would be drawn at random."""
    if missing:
        raise ValueError(f"{name}: lacks the weights {', '.join(sorted(missing)[:3])}: save it whole")


@contextmanager
def readable(name: str) -> Iterator[None]:
    """One line that names what cannot be read, without the loading notes of other libraries."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # heads beside the network would be listed as unexpected
    try:
        yield
    except (SafetensorError, EOFError) as error:
        raise ValueError(f"{name}: its weights cannot be read ({error}): copy or save them again") from error
    except (OSError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name}: cannot be loaded ({reason[:200]}{'...' * (len(reason) > 200)})") from error
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ValueError(reason if name in reason else f"{name}: {reason}") from error
    finally:
        logging.set_verbosity(level)


def device_of(device: str | None) -> torch.device:
    """The device of an option; without one, the GPU if there is one."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # how a build without it says so depends on the device
        reason = str(error).split(".")[0].split("\n")[0]
        raise ValueError(f"device: {device} cannot be used here ({reason}); use cpu, or leave it out") from error
