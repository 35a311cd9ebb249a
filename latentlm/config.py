"""Strict YAML <-> dataclasses: every mistake is one line that names the key, before anything is built.

A *part* is a frozen dataclass and is its own config. Where a field's type is a union of parts, the YAML key ``kind``
(the snake_case of the class name) chooses; a bare string is short for a part without arguments.
"""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml


class ConfigError(ValueError):
    """A mistake in a recipe, an override or an argument, told in one line."""


def kind_of(part: type) -> str:
    """snake_case of a class name: ``SmoothL1`` -> ``smooth_l1``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", part.__name__).lower()


def suggest(word: str, choices: Sequence[str]) -> str:
    """`; did you mean 'x'?`, or the list of choices where nothing is near."""
    near = difflib.get_close_matches(str(word), choices, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(sorted(choices))}"


@cache
def _fields(part: type) -> dict[str, tuple[Any, dataclasses.Field]]:
    hints = typing.get_type_hints(part)
    return {f.name: (hints[f.name], f) for f in dataclasses.fields(part) if f.init}


def _options(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(leaf for option in typing.get_args(annotation) for leaf in _options(option))
    return (annotation,)


def _parts(annotation: Any) -> list[type]:
    return [o for o in _options(annotation) if dataclasses.is_dataclass(o) and isinstance(o, type)]


def parse(annotation: Any, data: Any, path: str = "config") -> Any:
    """Turn plain data (as YAML gives it) into `annotation`, or raise `ConfigError` naming `path`."""
    options = _options(annotation)
    parts = _parts(annotation)
    if any(type(data) is part for part in parts):
        return data
    if data is None and type(None) in options:
        return None
    if isinstance(data, dict) and parts:
        return _parse_part(parts, data, path)
    if isinstance(data, str) and len(parts) > 1:
        by_kind = {kind_of(part): part for part in parts}
        if data in by_kind:
            return _build(by_kind[data], {}, path)
        if str not in options:
            raise ConfigError(f"{path}: unknown kind '{data}'{suggest(data, list(by_kind))}")
    for option in options:
        ok, value = _plain(option, data, path)
        if ok:
            return value
    raise ConfigError(f"{path}: {data!r} is not {_describe(annotation)}")


def _parse_part(parts: list[type], data: dict, path: str) -> Any:
    if len(parts) == 1:
        part = parts[0]
        if "kind" in data and "kind" not in _fields(part):
            if data["kind"] != kind_of(part):
                raise ConfigError(f"{path}: unknown kind '{data['kind']}'; known: {kind_of(part)}")
            data = {k: v for k, v in data.items() if k != "kind"}
        return _build(part, data, path)
    by_kind = {kind_of(part): part for part in parts}
    if "kind" not in data:
        raise ConfigError(f"{path}: needs a 'kind'; known: {', '.join(sorted(by_kind))}")
    if not isinstance(data["kind"], str) or data["kind"] not in by_kind:
        raise ConfigError(f"{path}: unknown kind '{data['kind']}'{suggest(str(data['kind']), list(by_kind))}")
    return _build(by_kind[data["kind"]], {k: v for k, v in data.items() if k != "kind"}, path)


def _build(part: type, data: dict, path: str) -> Any:
    fields = _fields(part)
    for key in data:
        if key not in fields:
            raise ConfigError(f"{path}: unknown key '{key}' for {part.__name__}{suggest(str(key), list(fields))}")
    for name, (_, field) in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise ConfigError(f"{path}: {part.__name__} needs the key '{name}'")
    values = {key: parse(fields[key][0], value, f"{path}.{key}") for key, value in data.items()}
    try:
        return part(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _plain(option: Any, data: Any, path: str) -> tuple[bool, Any]:
    """(matched, value) for one non-part option of a type."""
    origin = typing.get_origin(option)
    if option is Any:
        return True, data
    if origin is typing.Literal:
        values = typing.get_args(option)
        if data in values:
            return True, data
        if isinstance(data, str) and isinstance(values[0], str):
            raise ConfigError(f"{path}: unknown value '{data}'{suggest(data, values)}")
        return False, None
    if option is bool or option is str:
        return type(data) is option, data
    if option is int:
        return type(data) is int, data
    if option is float:
        return _float(data)
    if origin in (tuple, list, Sequence) and isinstance(data, list | tuple):
        item = typing.get_args(option)[0]
        values = [parse(item, value, f"{path}[{i}]") for i, value in enumerate(data)]
        return True, tuple(values) if origin is tuple else values
    if (origin is dict or option is dict) and isinstance(data, dict):
        item = typing.get_args(option)[1] if origin is dict else Any
        return True, {str(key): parse(item, value, f"{path}.{key}") for key, value in data.items()}
    return False, None


def _float(data: Any) -> tuple[bool, Any]:
    if type(data) in (int, float):
        return True, float(data)
    if isinstance(data, str):  # YAML 1.1 reads 1e-4 as a string
        try:
            return True, float(data)
        except ValueError:
            return False, None
    return False, None


def _describe(annotation: Any) -> str:
    names = []
    for option in _options(annotation):
        if dataclasses.is_dataclass(option):
            names.append("{kind: " + kind_of(typing.cast(type, option)) + ", ...}")
        elif typing.get_origin(option) is typing.Literal:
            names += map(str, typing.get_args(option))
        else:
            names.append("null" if option is type(None) else str(getattr(option, "__name__", option)))
    return " or ".join(dict.fromkeys(names))


def dump(value: Any, annotation: Any = None) -> Any:
    """The inverse of `parse`: plain data that YAML can write and `parse` reads back equal."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        out = {"kind": kind_of(type(value))} if len(_parts(annotation)) > 1 else {}
        return out | {name: dump(getattr(value, name), hint) for name, (hint, _) in _fields(type(value)).items()}
    if isinstance(value, dict):
        options = [o for o in _options(annotation) if typing.get_origin(o) is dict]
        item = typing.get_args(options[0])[1] if options else None
        return {key: dump(entry, item) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        options = [o for o in _options(annotation) if typing.get_origin(o) in (tuple, list, Sequence)]
        item = typing.get_args(options[0])[0] if options else None
        return [dump(entry, item) for entry in value]
    return value


def override(data: dict, assignments: Sequence[str]) -> dict:
    """Apply ``a.b=value`` assignments (values are YAML) to a copy of plain data.

    A new ``kind`` starts its block afresh, wherever it stands: the keys of the old kind mean nothing to it.
    """
    data = _copy(data)
    for assignment in sorted(assignments, key=lambda text: not text.partition("=")[0].endswith(".kind")):
        key, separator, text = assignment.partition("=")
        if not separator or not key:
            raise ConfigError(f"override '{assignment}': write key.path=value, for example optim.learning_rate=1e-4")
        *parents, last = key.split(".")
        node = data
        for depth, parent in enumerate(parents):
            child = node.get(parent)
            if child is None or (last == "kind" and depth == len(parents) - 1 and isinstance(child, str)):
                child = node[parent] = {}
            if not isinstance(child, dict):
                raise ConfigError(f"override '{assignment}': '{'.'.join(parents[: depth + 1])}' is not a block")
            node = child
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):  # ValueError: a date that does not exist
            value = text
        if isinstance(value, str) and value.startswith("~/"):  # the shell does not expand it behind a key
            value = str(Path(value).expanduser())
        if last == "kind" and node.get("kind") != value:
            node.clear()
        node[last] = value
    return data


def _copy(data: Any) -> Any:
    return {key: _copy(value) for key, value in data.items()} if isinstance(data, dict) else data


def recipe_names() -> dict[str, Path]:
    """Every recipe that comes with the package: ``text/nitp`` -> its file."""
    root = Path(str(files("latentlm_recipes")))
    found = sorted(path for path in root.glob("*/*.yaml") if path.parent.name != "accelerate")
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in found}


def accelerate_configs() -> dict[str, Path]:
    """Every launch configuration that comes with the package: ``fsdp2`` -> its file."""
    return {path.stem: path for path in sorted(Path(str(files("latentlm_recipes"))).glob("accelerate/*.yaml"))}


def read_recipe(name: str | Path) -> dict:
    """The plain data of a recipe: the name of a built-in one, a YAML file, or a run folder that holds recipe.yaml."""
    path = Path(name)
    if path.is_dir() and (path / "recipe.yaml").exists():
        path = path / "recipe.yaml"
    elif not path.is_file():
        known = recipe_names()
        if str(name) not in known:
            raise ConfigError(f"recipe '{name}': no such file and no built-in recipe{suggest(str(name), list(known))}")
        path = known[str(name)]
    try:
        text = path.read_text(encoding="utf-8")
        data, twice = yaml.safe_load(text), _given_twice(yaml.compose(text, yaml.SafeLoader))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that does not exist
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"recipe '{path}'{line}: not valid YAML ({problem})") from error
    if twice is not None:
        raise ConfigError(f"recipe '{path}', line {twice.start_mark.line + 1}: the key '{twice.value}' is given twice")
    if not isinstance(data, dict):
        raise ConfigError(f"recipe '{path}': must be a mapping with the blocks objective, model, data, optim, run")
    return data


def _given_twice(node: Any) -> Any:
    """First key that its mapping holds twice: YAML itself would silently take the last one."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        again = (key for place, (key, _) in enumerate(node.value) if key.value in keys[:place])
        inner = (_given_twice(value) for _, value in node.value)
        return next(again, None) or next(filter(None, inner), None)
    if isinstance(node, yaml.SequenceNode):
        return next(filter(None, map(_given_twice, node.value)), None)
    return None
