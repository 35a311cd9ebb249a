"""The vision network of a recipe: from scratch, or from a checkpoint at its own or another image size."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

from torch import nn
from transformers import AutoModel

from latentlm.backbones.geometry import Geometry, encoder_config, geometry, image_key
from latentlm.backbones.load import load_config, load_weights
from latentlm.backbones.preprocessing import Preprocessing, read_preprocessing
from latentlm.backbones.resample import fill_resampled
from latentlm.config.schema import ConfigError, suggest
from latentlm.data import Images
from latentlm.experiment.recipe import Model


def override(config: Any, given: dict[str, Any]) -> Any:
    """A checkpoint's config with the keys of ``model.config``; what the network would not read is refused."""
    changed = deepcopy(config)
    known = {*config.to_dict(), *config.attribute_map}
    for key, value in given.items():
        if key == "model_type":
            if value != config.model_type:
                raise ConfigError(
                    f"model.config.model_type: {value}, but the checkpoint of model.name is a {config.model_type}; "
                    "leave it out"
                )
            continue
        if key not in known:
            raise ConfigError(f"model.config: unknown key '{key}' for {config.model_type}{suggest(key, sorted(known))}")
        if isinstance(value, dict) and isinstance(below := getattr(changed, key), dict):
            value = below | value
        setattr(changed, key, value)
    return changed


def of_checkpoint(config: Any, spec: Model) -> Any:
    """The config of the network that is trained from a checkpoint: its vision tower, at the size that is asked for.

    Without a size in ``model.config`` that of the checkpoint's own processor is taken.
    """
    tower = encoder_config(config)
    changed = override(tower, spec.config)
    own = geometry(tower, str(spec.name))
    told, key = _preprocessing(spec, own), image_key(tower)
    if key is None or key in spec.config or told is None or told.size is None:
        return changed
    if told.size not in own.image and not told.size % own.patch[0] and not told.size % own.patch[1]:
        setattr(changed, key, told.size)
    return changed


def build_vision_model(spec: Model, config: Any, saved: Any, options: dict[str, Any]) -> nn.Module:
    """The network of `config`; with ``model.name`` its weights, whose config is `saved`."""
    if spec.name is None:
        return AutoModel.from_config(config, **options)
    tower = encoder_config(saved)
    is_part = tower is not saved
    old, new = geometry(tower, spec.name), geometry(config)
    if old == new:
        return load_weights(AutoModel, spec.name, config=config, part=is_part, **options)
    if old.patch != new.patch or old.channels != new.channels or old.num_layers != new.num_layers:
        raise ConfigError("model.config: beside model.name patches, channels and blocks are those of the checkpoint")
    weights = load_weights(AutoModel, spec.name, config=tower, part=is_part, **options).state_dict()
    model = AutoModel.from_config(config, **options)
    fill_resampled(model, weights, old.shape, new.shape)
    model.config._name_or_path = spec.name
    return model


def told_of_size(spec: Model, config: Any) -> list[str]:
    """Lines on what is not as the checkpoint has it."""
    if spec.name is None:
        return []
    saved, new = load_config(spec.name, spec.trust_remote_code), geometry(config)
    tower, lines = encoder_config(saved), []
    if saved.model_type == "vit_mae":
        lines.append(f"{spec.name}: the encoder of a MAE, loaded as a ViT; its own masking and decoder are left out")
    old = geometry(tower, spec.name)
    if old.image != new.image:
        lines.append(
            f"{spec.name}: made for images of {_size(old)}, trained at {_size(new)}; learned positions are resampled"
            + ("" if image_key(tower) in spec.config else f" (its processor says so; {_hint(tower, old)})")
        )
    return lines


def with_preprocessing(data: Images, spec: Model, config: Any) -> tuple[Images, list[str]]:
    """The data with the mean and deviation of the checkpoint's processor, and a line where the recipe has others."""
    sizes = geometry(config)
    told = _preprocessing(spec, sizes)
    mean, std = (told.mean, told.std) if told is not None else ((0.5,), (0.5,))
    if len(mean) not in (1, sizes.channels):
        mean, std = (mean[0],), (std[0],)
    lines = []
    for key, own, theirs in (("mean", data.mean, mean), ("std", data.std, std)):
        if own is not None and told is not None and not _equal(own, theirs):
            lines.append(
                f"data.{key}: {list(own)}, but {spec.name} was trained with {list(theirs)}; leave it out to use that"
            )
    return replace(data, mean=data.mean or mean, std=data.std or std), lines


def _preprocessing(spec: Model, sizes: Geometry) -> Preprocessing | None:
    if spec.name is None:
        return None
    found = read_preprocessing(spec.name)
    if found is None and sizes.norm is not None:
        return Preprocessing(*sizes.norm, size=None)
    return found


def _equal(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    num = max(len(one), len(other))
    one, other = (each * (num // len(each)) for each in (one, other))
    return all(abs(a - b) < 1e-3 for a, b in zip(one, other, strict=True))


def _size(sizes: Geometry) -> str:
    return f"{sizes.image[0]} x {sizes.image[1]}"


def _hint(config: Any, old: Geometry) -> str:
    return f"model.config.{image_key(config)}={old.image[0]} keeps its size"
