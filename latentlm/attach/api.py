"""Attach latent terms to a Hugging Face model in place: its class, `generate`, adapters and checkpoints stay the same.

Hooks on the blocks only store. The heads run in a forward hook of the decoder, which is inside PEFT's call, autocast
and sharding, and which also fires when a trainer replaces the output head. The hook on the model adds to the loss.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from latentlm.attach.attachment import Attachment, LatentHeads
from latentlm.attach.hooks import add_hooks
from latentlm.attach.state import LatentState, latent_state
from latentlm.backbones import find_backbone
from latentlm.backbones.geometry import geometry
from latentlm.backbones.load import load_config, load_weights, readable, some
from latentlm.config.catalog import read_recipe
from latentlm.config.migration import check_data
from latentlm.config.schema import ConfigError, dump, parse
from latentlm.data.images import ImageCollator, Mask, Views
from latentlm.objective.index_sets import places_read
from latentlm.objective.objective import Objective
from latentlm.objective.terms_module import check_names

CONFIG_KEY = "latentlm"
KEYS = ("latent_loss", "data_loss")
AnyModel = TypeVar("AnyModel", bound=nn.Module)


def get_latent_model(
    model: AnyModel,
    objective: str | Path | dict | Objective,
    *,
    layers_path: str | None = None,
    seed: int = 0,
) -> AnyModel:
    """Add latent-prediction heads to a causal LM or a ViT; returns the same object.

    In training the model's ``loss`` becomes ``data * next-token loss + sum of weighted terms`` and its output also
    carries ``data_loss`` and ``latent_loss``. In evaluation mode and in `generate` nothing changes. Attach before PEFT,
    before `torch.compile` and before any distributed wrapper.

    Args:
        model: any `transformers` causal LM, or a ViT (then the objective has ``data: 0`` but for a model with labels).
        objective: an `Objective`, a method's name (``nitp``), a path, or plain data (a recipe or its objective).
        layers_path: dotted name of the list of blocks, where it cannot be found.
        seed: of the heads' first weights; the global random state is left alone.
    """
    if hasattr(getattr(model, "config", None), CONFIG_KEY) and not hasattr(model, "latent"):
        folder = Path(str(getattr(model, "name_or_path", "")))
        if folder.is_dir() and any(name != "_extra_state" for name, _ in saved_heads(folder)):
            warnings.warn(
                f"{folder}: holds trained latent heads, and they start again; load them with the weights by "
                "latentlm.from_pretrained, or model.load_latent_heads=true",
                stacklevel=2,
            )
    return attach(model, objective, layers_path=layers_path, seed=seed)


def attach(
    model: AnyModel, objective: str | Path | dict | Objective, *, layers_path: str | None = None, seed: int = 0
) -> AnyModel:
    """As `get_latent_model`, for heads that are loaded next."""
    objective = as_objective(objective)
    if hasattr(model, "latent"):
        raise ValueError(f"{type(model).__name__} already has a child named 'latent'; attach to a fresh model")
    backbone, causal_lm = find_backbone(model, layers_path), cast(Any, model)
    if backbone.grid is None:  # evaluations read encoders too; only training on next states needs a causal network
        causal = [part.is_causal for block in backbone.layers for part in block.modules() if hasattr(part, "is_causal")]
        if causal and not any(causal):
            raise ValueError(
                f"{type(model).__name__} reads in both directions: every next state is seen; use a causal LM"
            )
    if objective.lm_weight > 0 and not backbone.has_loss:
        raise ValueError(f"objective.lm_weight: {type(model).__name__} has no own loss; set it to 0")
    embedding = backbone.dim if backbone.grid else causal_lm.get_input_embeddings().weight.shape[-1]
    specs = objective.resolve(backbone.num_layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with torch.device("cpu"):
            heads = LatentHeads(specs, objective, backbone, embedding)
    place = next(model.parameters()).device
    causal_lm.latent = heads if place.type == "meta" else heads.to(place)
    if backbone.grid is None and getattr(model, "loss_type", "ForCausalLM") is None:
        causal_lm.loss_type = "ForCausalLM"  # without it the trainer counts label 0 as well and the loss is too small
    config = causal_lm.config
    ignored = getattr(config, "keys_to_ignore_at_inference", None) or ()
    config.keys_to_ignore_at_inference = [*(key for key in ignored if key not in KEYS), *KEYS]
    setattr(config, CONFIG_KEY, {"objective": dump(objective), "layers_path": layers_path})
    add_hooks(LatentState(Attachment.of(model, backbone, objective, specs)))
    return model


def as_objective(objective: str | Path | dict | Objective, where: str | Path = "objective") -> Objective:
    """Any way of naming an objective, checked; `where` is what to call plain data in a message."""
    if isinstance(objective, Objective):
        return objective
    data, path = (read_recipe(objective), objective) if isinstance(objective, str | Path) else (objective, where)
    if isinstance(named := data.get("objective"), str):  # an experiment names its method
        return as_objective(named)
    if named is not None:
        data, path = named, f"{path}: objective"
    check_data({"objective": data}, str(path))
    return parse(Objective, data, str(path))


def from_pretrained(path: str | Path, **kwargs: Any) -> PreTrainedModel:
    """Load a model saved with its heads, and attach them again.

    Weights that are missing, or of another size than the config says, are refused: they would be random.

    Args:
        path: folder written by `save_pretrained` of a model with heads.
        kwargs: for `from_pretrained` of the model's class; ``dtype`` is float32 where it is not given.
    """
    if not Path(path).is_dir():
        raise ConfigError(f"{path}: no such folder; name one that save_pretrained has written")
    dtype, trusted = kwargs.pop("dtype", torch.float32), bool(kwargs.pop("trust_remote_code", False))
    config = load_config(path, trusted)
    saved = getattr(config, CONFIG_KEY, None)
    if saved is None:
        raise ConfigError(f"{path}: has no latent heads (no {CONFIG_KEY} in config.json); use get_latent_model")
    auto = AutoModelForCausalLM if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else _own_class(path, config)
    model = load_weights(auto, path, dtype=dtype, trust_remote_code=trusted, **kwargs)
    attach(model, as_objective(saved["objective"], Path(path) / "config.json"), layers_path=saved["layers_path"])
    load_heads(model, Path(path))
    return model


def _own_class(path: str | Path, config: Any) -> Any:
    """The class that a folder says it was saved from."""
    name = (getattr(config, "architectures", None) or ["AutoModel"])[0]
    found = getattr(transformers, str(name), None)
    if found is not transformers.AutoModel and not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        raise ConfigError(f"{path}: config.json names the architecture {name}, which is not a model of transformers")
    return found


def load_heads(model: Any, folder: Path) -> None:
    """Give an attached model the heads that were saved in a folder; all of them must be there."""
    heads = latent_state(model).model.latent
    with readable(folder):
        saved = dict(saved_heads(folder))
    check_names(saved, "terms.")
    own = heads.state_dict()
    if missing := own.keys() - saved.keys():
        raise ConfigError(
            f"{folder}: lacks {len(missing)} weights of the latent heads ({some(missing)}); save it whole"
        )
    try:
        heads.load_state_dict(saved)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:150]
        raise ConfigError(f"{folder}: its latent heads belong to other terms ({reason})") from error


def restore(model: Any, folder: str | Path) -> None:
    """Load the weights of a checkpoint whose names are not the model's, heads included; else there is nothing to do.

    transformers saves some families, ViT among them, under the names of their released checkpoints, and its trainer
    loads a checkpoint by name: it would go on with fresh weights. What a checkpoint lacks is refused in both cases.
    """
    files = sorted(Path(folder).glob("model*.safetensors"))
    own, names = model.state_dict(), {name for file in files for name in _names(file)}
    if names <= own.keys():
        have = {own[name].data_ptr() for name in names}  # tied weights are saved once
        missing = {name for name, weight in own.items() if name not in names and weight.data_ptr() not in have}
        if files and missing:
            raise ConfigError(f"{folder}: lacks {len(missing)} of the weights ({some(missing)}); resume from another")
        return
    saved = load_weights(type(model), folder, dtype=model.dtype).state_dict()
    with torch.no_grad():
        for name, weight in (*model.named_parameters(), *model.named_buffers()):
            if name in saved:
                weight.copy_(saved[name])
    load_heads(model, Path(folder))


def _names(file: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        return list(tensors.keys())


def saved_heads(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Weights of the heads in a folder, by their names in `LatentHeads`."""
    from safetensors import safe_open

    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                # some families are saved below a prefix of their released checkpoints
                _, found, own = f".{name}".partition(".latent.")
                if found:
                    yield own, tensors.get_tensor(name)


def remove_latent(model: AnyModel) -> AnyModel:
    """Take heads and hooks off again; what is left is the plain model with its trained weights."""
    state = latent_state(model)
    state.detach()
    del state.model.latent
    config = state.model.config
    delattr(config, CONFIG_KEY)
    kept = [key for key in config.keys_to_ignore_at_inference if key not in KEYS]
    del config.keys_to_ignore_at_inference  # what the class says shows again
    if kept != list(getattr(config, "keys_to_ignore_at_inference", ())):
        config.keys_to_ignore_at_inference = kept
    return model


def image_collator(
    model: nn.Module,
    views: Views | None = None,
    mask: Mask | None = None,
    mean: tuple[float, ...] = (0.5,),
    std: tuple[float, ...] = (0.5,),
) -> ImageCollator:
    """The collator whose batches a model with terms reads: its image size and patches, and the sets of its terms.

    For `DataLoader(collate_fn=...)` of any loop. Examples are dicts with an ``image`` (PIL, uint8 ``[c h w]``, a path
    or bytes), which it crops and changes by `views`; or give its `of_views` crops that other transforms have made.

    Checked:   tests/monitor/test_image_batches.py - a model trains on batches of its collator.

    Args:
        model: what `get_latent_model` has returned, in whatever wrappers.
        views: crops and changes of each image; a method says in its recipe which ones it needs. None: the image itself.
        mask: which patches are hidden, where a term reads ``visible`` or ``masked``.
        mean: of the channels, for ``(x / 255 - mean) / std``.
        std: of the channels.
    """
    state = latent_state(model)
    grid = state.backbone.grid
    if grid is None:
        raise ValueError(f"{type(state.model).__name__}: reads no images; texts are batched by latentlm.data.Collator")
    read = [places_read(term) for term in state.objective.terms.values()]
    sets = tuple(dict.fromkeys(at for both in read for places in both for at in places if isinstance(at, str)))
    taught = tuple(at for _, places in read for at in places)
    side = geometry(grid.config).image[0]
    return ImageCollator(views or Views(), mask, side, grid.patch[0], grid.channels, mean, std, sets, taught)
