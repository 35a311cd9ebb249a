"""A recipe from its pieces: an experiment (model, data, training), a method (objective), a model, and overrides."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentlm.config.catalog import check_recipe, experiment_names, method_names, model_names, read_recipe
from latentlm.config.migration import check_overrides
from latentlm.config.overrides import apply, split
from latentlm.config.schema import ConfigError, suggest

TOY = {"text": "facts", "images": "scenes"}  # what a method is tried on that names nothing in `try_on`
METHOD = {"objective", "data", "training", "try_on"}  # blocks of a method


def compose(name: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The plain data of a whole recipe: experiment <- method <- overrides.

    `name` is an experiment, a method, a YAML file or a run folder. A method alone is tried on its toy experiment; with
    ``model.name=``, or with ``data.source=`` for texts, it starts from ``finetune`` instead. ``objective`` and
    ``model`` may be names, in a file and as an override.
    """
    pairs = [split(text) for text in overrides]
    check_overrides(pairs)
    data = read_recipe(name)
    if isinstance(data.get("objective"), dict) and set(data) <= METHOD:
        base = _base(data, pairs)
        data = merge(read_recipe(experiment_names()[base]), _method(name))
    for key, value in pairs:
        if key == "objective" and isinstance(value, str):  # a method named later wins over what the file says
            data = merge(data, _method(value))
        if key == "model" and isinstance(value, str):
            data = data | {"model": value}
    if isinstance(objective := data.get("objective"), str):
        data = merge(_method(objective), {k: v for k, v in data.items() if k != "objective"})
    if isinstance(model := data.get("model"), str):
        data = data | {"model": _named(model, "model", model_names())}
    if isinstance(model := data.get("model"), dict) and any(_names_model(key, value) for key, value in pairs):
        # what belongs to the network from scratch that the name replaces; overrides are applied below
        data = data | {"model": {k: v for k, v in model.items() if k not in ("config", "tokenizer")}}
    rest = [(key, value) for key, value in pairs if key not in ("objective", "model") or not isinstance(value, str)]
    data = apply(data, rest)
    if isinstance(block := data.get("data"), dict) and "kind" not in block:
        data["data"] = {"kind": "text", **block}
    if "model" not in data:
        raise ConfigError(f"{name}: needs a model; give model.name=NAME, or model=tiny_llama for one from scratch")
    if "data" not in data or (data["data"].keys() <= {"kind"} if isinstance(data["data"], dict) else False):
        raise ConfigError(f"{name}: needs data; give data.source=FILE, a folder or a hub data set")
    return data


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, block by block; a block of another ``kind``, and an objective, is replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        same = isinstance(below, dict) and isinstance(value, dict) and below.get("kind", 0) == value.get("kind", 0)
        merged[key] = merge(below, value) if same and key != "objective" else value  # type: ignore[arg-type]
    return merged


def _base(method: dict[str, Any], pairs: Sequence[tuple[str, Any]]) -> str:
    """The experiment that a method is run in."""
    data = method.get("data")
    kind = str(data.get("kind")) if isinstance(data, dict) else "text"
    # images of one's own train a network from scratch as well, the toy one if no other is named
    own = any(_names_model(key, value) or (kind != "images" and _names_source(key, value)) for key, value in pairs)
    if not own and isinstance(toy := method.get("try_on"), str):
        if toy not in experiment_names():
            raise ConfigError(f"try_on: no experiment '{toy}'{suggest(toy, list(experiment_names()))}")
        return toy
    return "finetune" if own else TOY.get(kind, "facts")


def _names_model(key: str, value: Any) -> bool:
    block = value if key == "model" and isinstance(value, dict) else {}
    return (key == "model.name" and value is not None) or block.get("name") is not None


def _names_source(key: str, value: Any) -> bool:
    """Whether one's own files are named: a generated set can be changed within the toy experiment."""
    block = value if key == "data" and isinstance(value, dict) else {}
    source = value if key == "data.source" else block.get("source")
    return isinstance(source, str) or (isinstance(source, dict) and ("path" in source))


def _method(name: str | Path) -> dict[str, Any]:
    """The blocks of a method, or of a recipe whose objective is meant."""
    data = read_recipe(name) if Path(name).exists() else _named(str(name), "objective", method_names())
    return {key: value for key, value in data.items() if key != "try_on"}


def _named(name: str, key: str, known: dict[str, Path]) -> dict[str, Any]:
    if name in known:
        return read_recipe(known[name])
    if Path(name).is_file():
        return read_recipe(name)
    check_recipe(name, key)
    raise ConfigError(f"{key}: no such file and no built-in {'method' if key == 'objective' else key} '{name}'"
                      f"{suggest(name, list(known))}")  # fmt: skip
