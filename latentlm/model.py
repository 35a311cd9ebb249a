"""Attach latent terms to a Hugging Face model in place: its class, `generate`, adapters and checkpoints stay the same.

Hooks on the blocks only store. The heads run in a forward hook of the decoder, which is inside PEFT's call, autocast
and sharding, and which also fires when a trainer replaces the output head. The hook on the model adds to the loss.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentlm.attach import Run, add_hooks
from latentlm.backbones import find_backbone
from latentlm.config import ConfigError, dump, parse, read_recipe
from latentlm.ema import Teacher
from latentlm.objective import Objective, Terms, depths, teachers

CONFIG_KEY = "latentlm_objective"


class LatentHeads(nn.Module):
    """Everything that training adds to a model: predictors, heads, teachers, and the number of steps taken.

    It is the child ``latent`` of the model, so every engine sees, saves and shards it.
    """

    def __init__(self, objective: Objective, num_layers: int, hidden: int, embedding: int):
        super().__init__()
        plain = objective.expand(num_layers)
        self.terms = Terms(plain, objective.heads, hidden, embedding)
        self.teachers = nn.ModuleDict({kind: Teacher(momentum) for kind, momentum in teachers(plain).items()})
        self.step: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(self, context: Any, step: int) -> Any:
        """Reports of all terms."""
        return self.terms(context, step)


def get_latent_model(
    model: nn.Module,
    objective: str | Path | dict | Objective,
    *,
    layers_path: str | None = None,
    seed: int = 0,
) -> nn.Module:
    """Add latent-prediction heads to a causal LM; returns the same object.

    In training the model's ``loss`` becomes ``data * next-token loss + sum of weighted terms`` and its output also
    carries ``data_loss`` and ``latent_loss``. In evaluation mode and in `generate` nothing changes. Attach before PEFT,
    before `torch.compile` and before any distributed wrapper.

    Args:
        model: any `transformers` causal LM.
        objective: an `Objective`, a recipe's name (``text/nitp``), a path, or plain data (a recipe or its objective).
        layers_path: dotted name of the list of blocks, where it cannot be found.
        seed: of the heads' first weights; the global random state is left alone.
    """
    objective = as_objective(objective)
    if hasattr(model, "latent"):
        raise ValueError(f"{type(model).__name__} already has a child named 'latent'; attach to a fresh model")
    backbone = find_backbone(model, layers_path)
    embedding = model.get_input_embeddings().weight.shape[-1]  # type: ignore[operator]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with torch.device("cpu"):
            heads = LatentHeads(objective, backbone.num_layers, backbone.dim, embedding)
    place = next(model.parameters()).device
    model.latent = heads if place.type == "meta" else heads.to(place)
    if getattr(model, "loss_type", "ForCausalLM") is None:
        model.loss_type = "ForCausalLM"  # without it the trainer counts label 0 as well and the loss is too small
    ignored = list(getattr(model.config, "keys_to_ignore_at_inference", None) or [])
    model.config.keys_to_ignore_at_inference = [*ignored, "latent_loss", "data_loss"]
    setattr(model.config, CONFIG_KEY, dump(objective))
    wanted = {kind: depths(heads.terms.terms, kind) for kind in (None, *heads.teachers)}
    add_hooks(model, Run(model, backbone, objective, wanted))
    return model


def as_objective(objective: str | Path | dict | Objective) -> Objective:
    """Any way of naming an objective, checked."""
    if isinstance(objective, Objective):
        return objective
    data = read_recipe(objective) if isinstance(objective, str | Path) else objective
    path = str(objective) if isinstance(objective, str | Path) else "objective"
    if "objective" in data:
        data, path = data["objective"], f"{path}: objective"
    return parse(Objective, data, path)


def from_pretrained(path: str | Path, **kwargs: Any) -> nn.Module:
    """Load a model saved with its heads, and attach them again.

    Args:
        path: folder written by `save_pretrained` of a model with heads.
        kwargs: for `AutoModelForCausalLM.from_pretrained`.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # the heads would be listed as unexpected
    try:
        model = AutoModelForCausalLM.from_pretrained(path, **kwargs)
    finally:
        logging.set_verbosity(level)
    saved = getattr(model.config, CONFIG_KEY, None)
    if saved is None:
        raise ConfigError(f"{path}: has no latent heads (no {CONFIG_KEY} in config.json); use get_latent_model")
    get_latent_model(model, saved)
    state = {name: value for name, value in _tensors(Path(path)) if name.startswith("latent.")}
    model.latent.load_state_dict({name.removeprefix("latent."): value for name, value in state.items()})
    return model


def _tensors(folder: Path):
    from safetensors import safe_open

    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                if name.startswith("latent."):
                    yield name, tensors.get_tensor(name)


def remove_latent(model: nn.Module) -> nn.Module:
    """Take heads and hooks off again; what is left is the plain model with its trained weights."""
    run = model.__dict__.pop("_latent_run")
    run.detach()
    del model.latent
    delattr(model.config, CONFIG_KEY)
    keys = model.config.keys_to_ignore_at_inference
    model.config.keys_to_ignore_at_inference = [k for k in keys if k not in ("latent_loss", "data_loss")]
    return model
