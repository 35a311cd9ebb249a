"""The network of a recipe: its config, tokenizer, weights, heads and adapters; mistakes are told in that order."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_MAPPING_NAMES

from latentlm.attach.api import attach, get_latent_model, load_heads, saved_heads
from latentlm.attach.peft import latent_lora_config
from latentlm.attach.state import latent_state
from latentlm.backbones.geometry import CHANNELS, IMAGE, geometry
from latentlm.backbones.load import load_config, load_weights
from latentlm.backbones.sine_positions import set_sine_positions
from latentlm.components.tap import Depth, resolve_depth
from latentlm.config.schema import ConfigError, suggest
from latentlm.data import Document, Images, bpe_tokenizer, word_tokenizer
from latentlm.experiment.recipe import Lora, Model, Recipe, Words
from latentlm.experiment.vision_model import build_vision_model, of_checkpoint, override
from latentlm.objective.terms import teachers

# what transformers and PEFT raise of values that they cannot use
FOREIGN = (
    ValueError, OSError, ImportError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError,
    ArithmeticError, StrictDataclassError,
)  # fmt: skip


SIZES = (  # of a network, which has none of 0
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "vocab_size", "max_position_embeddings", "image_size", "patch_size", "num_channels",
)  # fmt: skip


def read_config(recipe: Recipe) -> PreTrainedConfig:
    """The network's config, checked against the objective's depths before any weights are there."""
    spec = recipe.model
    if isinstance(recipe.data, Images):
        return _vision_config(recipe)
    if spec.name is None:
        config = _config_from_scratch(spec.config)
    else:
        config = override(_config_of(spec.name, spec), spec.config)
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not spec.trust_remote_code:
        raise ConfigError(f"model.name: {spec.name} is a {config.model_type}, not a causal language model; use one")
    num_layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if num_layers is not None:
        if num_layers < 1:
            raise ConfigError(f"model.config.num_hidden_layers: {num_layers}; set it to 1 or more")
        recipe.objective.resolve(num_layers)
        _check_freeze_above(spec, num_layers)
    return config


def _check_freeze_above(spec: Model, num_layers: int) -> None:
    if spec.freeze_above is not None:
        with _told("model.freeze_above"):
            resolve_depth(spec.freeze_above, num_layers)


def _vision_config(recipe: Recipe) -> Any:
    """The config of a ViT, checked against the objective."""
    spec, objective = recipe.model, recipe.objective
    if spec.name is None:
        config: Any = _config_from_scratch(spec.config, vision=True)
    else:
        config = of_checkpoint(_config_of(spec.name, spec), spec)
    num_layers = geometry(config, "model" if spec.name is None else spec.name).num_layers
    _check_freeze_above(spec, num_layers)
    if objective.lm_weight > 0:
        raise ConfigError("objective.lm_weight: a ViT has no next-token loss; set lm_weight: 0 (pixels are a target)")
    if not objective.terms:
        raise ConfigError("objective.terms: there is nothing to train; give a term")
    for kind, teacher_config in teachers(objective.resolve(num_layers)).items():
        if teacher_config.checkpoint is not None:
            other = _config_of(teacher_config.checkpoint, spec, f"target {kind}: checkpoint")
            keys = ("model_type", "architecture", "hidden_size", "num_hidden_layers", *IMAGE, "patch_size", *CHANNELS)
            if differ := [key for key in keys if getattr(other, key, None) != getattr(config, key, None)]:
                raise ConfigError(
                    f"target {kind}: checkpoint {teacher_config.checkpoint} is another network ({differ[0]} "
                    f"{getattr(other, differ[0], None)}, not {getattr(config, differ[0])}); train or name one like it"
                )
    return config


def build_tokenizer(spec: Model, documents: list[Document]) -> Any:
    """The model's own tokenizer, or one fitted on the documents; it has eos, and pad is eos where it is missing."""
    if spec.name is None:
        texts = [document.text for document in documents]
        with _told("model.tokenizer"):
            chat = any(document.messages is not None for document in documents)
            if isinstance(spec.tokenizer, Words):
                return word_tokenizer(texts, chat=chat)
            return bpe_tokenizer(texts, spec.tokenizer.vocab_size, chat)
    with _told("model.name", f"{spec.name} has no tokenizer that can be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(spec.name, trust_remote_code=spec.trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"model.name: the tokenizer of {spec.name} has no eos; set eos_token in its files")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked by segment, never by id
    return tokenizer


def build_model(recipe: Recipe, config: PreTrainedConfig, tokenizer: Any) -> nn.Module:
    """The network with heads, and adapters where the recipe has them."""
    spec = recipe.model
    options: dict[str, Any] = {"dtype": getattr(torch, spec.dtype), "trust_remote_code": spec.trust_remote_code}
    options |= {"attn_implementation": spec.attn_implementation} if spec.attn_implementation else {}
    with _told("model"):
        if isinstance(recipe.data, Images):
            saved = None if spec.name is None else _config_of(spec.name, spec)
            model = build_vision_model(spec, config, saved, options)
        elif spec.name is None:
            for key, value in _fitted(tokenizer).items() if tokenizer else ():
                if key not in spec.config:
                    setattr(config, key, value)
            model = AutoModelForCausalLM.from_config(config, **options)
        else:
            model = load_weights(AutoModelForCausalLM, spec.name, config=config, **options)
    if tokenizer:
        rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[index]
        if len(tokenizer) > rows:
            raise ConfigError(f"model: {rows} embeddings for the {len(tokenizer)} tokens of the tokenizer; give more")
    place = attach if spec.load_latent_heads else get_latent_model
    place(model, recipe.objective, layers_path=spec.layers_path, seed=recipe.training["seed"])
    if spec.positions == "sine":
        set_sine_positions(model, latent_state(model).backbone, geometry(config).shape)
    if spec.load_latent_heads:
        _load_heads(model, str(spec.name))
    if spec.freeze_above is not None:
        _freeze_above(model, spec.freeze_above)
    return model if spec.lora is None else _with_adapters(model, spec.lora)


def _freeze_above(model: Any, depth: Depth) -> None:
    backbone = latent_state(model).backbone
    num = resolve_depth(depth, backbone.num_layers)
    above = [*backbone.layers[num:], backbone.norm, model.get_output_embeddings()]
    below = [model.get_input_embeddings(), *backbone.layers[:num]]
    shared = {id(weight) for module in below for weight in module.parameters()}  # a tied head, or blocks that are one
    for module in above:
        for weight in module.parameters() if module is not None else ():
            weight.requires_grad_(id(weight) in shared)


def _load_heads(model: Any, name: str) -> None:
    if not any(True for _ in saved_heads(Path(name))):
        raise ConfigError(f"model.load_latent_heads: there are none in {name}; leave it out")
    try:
        load_heads(model, Path(name))
    except ConfigError as error:
        raise ConfigError(f"model.load_latent_heads: {error}; or leave it out") from error


def _with_adapters(model: nn.Module, lora: Lora) -> nn.Module:
    from peft import get_peft_model

    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    options = {"r": lora.r, "lora_alpha": lora.lora_alpha, "lora_dropout": lora.lora_dropout, "target_modules": targets}
    if latent_state(model).backbone.grid is not None:
        options["task_type"] = None  # a ViT generates nothing
    with _told("model.lora"):
        return get_peft_model(model, latent_lora_config(**options))  # type: ignore[arg-type]


def _config_from_scratch(given: dict[str, Any], vision: bool = False) -> PreTrainedConfig:
    kind = given["model_type"]
    known = MODEL_MAPPING_NAMES if vision else MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if kind not in known:
        near = difflib.get_close_matches(str(kind), known, n=1)
        what, some = ("vision model", "vit or dinov2") if vision else ("causal language model", "llama, gpt2 or qwen3")
        hint = f"did you mean '{near[0]}'?" if near else f"use one such as {some}"
        raise ConfigError(f"model.config.model_type: no {what} '{kind}'; {hint}")
    for key, value in given.items():
        least = 1 if key in SIZES else 0 if key.startswith(("num_", "n_")) else None
        if least is not None and isinstance(value, int | float) and not value >= least:
            raise ConfigError(f"model.config.{key}: {value}; set it to {least} or more")
    with _told("model.config"):
        blank, config = AutoConfig.for_model(kind), AutoConfig.for_model(**given)
    known = {*blank.to_dict(), *blank.attribute_map}
    for key in given.keys() - known:
        # transformers keeps any key; one that changes nothing else is a typo, an older name of something is not
        rest = {name: value for name, value in config.to_dict().items() if name != key}
        without = AutoConfig.for_model(**{name: value for name, value in given.items() if name != key})
        if rest == without.to_dict():
            raise ConfigError(f"model.config: unknown key '{key}' for {kind}{suggest(key, sorted(known))}")
    return config


def _config_of(name: str, spec: Model, key: str = "model.name") -> PreTrainedConfig:
    if (Path(name).is_absolute() or name.startswith((".", "~"))) and not Path(name).exists():
        raise ConfigError(f"{key}: there is no folder {name}; check the path")
    with _told(key):
        return load_config(name, spec.trust_remote_code)


def _fitted(tokenizer: Any) -> dict[str, Any]:
    """What the config of a network from scratch takes from its tokenizer."""
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    return {"vocab_size": len(tokenizer), **ids}


@contextmanager
def _told(key: str, what: str = "") -> Iterator[None]:
    """One line under the recipe's key instead of another library's words alone."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
    except Exception as error:
        if not (isinstance(error, FOREIGN) or type(error) is Exception):  # tokenizers raises nothing more telling
            raise
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason:
            told = "comes with code of its own; read it, then allow it with model.trust_remote_code=true"
            raise ConfigError(f"{key}: {told}") from error
        reason = reason if len(reason) <= 200 else f"{reason[:200]}..."
        raise ConfigError(f"{key}: {what} ({reason})" if what else f"{key}: {reason}") from error
