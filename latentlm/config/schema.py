"""Strict YAML <-> dataclasses: every mistake is one line that names the key, before anything is built.

A *part* is a frozen dataclass and is its own config. Where a field's type is a union of parts, the YAML key ``kind``
(the snake_case of the class name) chooses; a bare string is short for a part without arguments.
"""

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any


class ConfigError(ValueError):
    """A mistake in a recipe, an override or an argument, told in one line."""


def kind_of(part: type) -> str:
    """snake_case of a class name: ``SmoothL1`` -> ``smooth_l1``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", part.__name__).lower()


def suggest(word: str, choices: Sequence[str]) -> str:
    """`; did you mean 'x'?`, or the list of choices where nothing is near."""
    near = difflib.get_close_matches(str(word)[:80], choices, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    known = sorted(choices)
    return f"; known: {', '.join(known[:60])}{', ...' if len(known) > 60 else ''}"


def shorten(value: Any) -> str:
    """What was given, for a message; long values are cut."""
    return _cut(value, repr)


def _cut(value: Any, shown: Callable[[Any], str] = str) -> str:
    try:
        text = " ".join(shown(value).split())
    except ValueError:  # an integer of thousands of digits
        text = "a very long number"
    return text if len(text) <= 80 else f"{text[:80]}..."


@cache
def fields_of(part: type) -> dict[str, tuple[Any, dataclasses.Field]]:
    """Type and field of every key of a part."""
    hints = typing.get_type_hints(part)
    return {f.name: (hints[f.name], f) for f in dataclasses.fields(part) if f.init}


def options_of(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, flat; of another type itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(leaf for option in typing.get_args(annotation) for leaf in options_of(option))
    return (annotation,)


def parts_of(annotation: Any) -> list[type]:
    """The dataclasses among the types of a union."""
    return [o for o in options_of(annotation) if dataclasses.is_dataclass(o) and isinstance(o, type)]


def parse(annotation: Any, data: Any, path: str = "config") -> Any:
    """Turn plain data (as YAML gives it) into `annotation`, or raise `ConfigError` naming `path`."""
    options = options_of(annotation)
    parts = parts_of(annotation)
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
            raise ConfigError(f"{path}: unknown kind '{_cut(data)}'{suggest(data, list(by_kind))}")
    for option in options:
        ok, value = _plain(option, data, path)
        if ok:
            return value
    raise ConfigError(f"{path}: {shorten(data)} is not {_describe(annotation)}")


def _parse_part(parts: list[type], data: dict, path: str) -> Any:
    if len(parts) == 1:
        part = parts[0]
        if "kind" in data and "kind" not in fields_of(part):
            if data["kind"] != kind_of(part):
                raise ConfigError(f"{path}: unknown kind '{_cut(data['kind'])}'; known: {kind_of(part)}")
            data = {k: v for k, v in data.items() if k != "kind"}
        return _build(part, data, path)
    by_kind = {kind_of(part): part for part in parts}
    if "kind" not in data:
        raise ConfigError(f"{path}: needs a 'kind'; known: {', '.join(sorted(by_kind))}")
    if not isinstance(data["kind"], str) or data["kind"] not in by_kind:
        raise ConfigError(f"{path}: unknown kind '{_cut(data['kind'])}'{suggest(str(data['kind']), list(by_kind))}")
    return _build(by_kind[data["kind"]], {k: v for k, v in data.items() if k != "kind"}, path)


def _build(part: type, data: dict, path: str) -> Any:
    fields = fields_of(part)
    for key in data:
        if key not in fields:
            what = suggest(str(key), list(fields)) if fields else ", which has none; leave it out"
            raise ConfigError(f"{path}: unknown key '{_cut(key)}' for {part.__name__}{what}")
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
            raise ConfigError(f"{path}: unknown value '{_cut(data)}'{suggest(data, values)}")
        return False, None
    if option is bool or option is str:
        return type(data) is option, data
    if option is int:
        return type(data) is int, data
    if option is float:
        return _float(data, path)
    if origin in (tuple, list, Sequence) and isinstance(data, list | tuple):
        item = typing.get_args(option)[0]
        values = [parse(item, value, f"{path}[{i}]") for i, value in enumerate(data)]
        return True, tuple(values) if origin is tuple else values
    if (origin is dict or option is dict) and isinstance(data, dict):
        item = typing.get_args(option)[1] if origin is dict else Any
        return True, {str(key): parse(item, value, f"{path}.{key}") for key, value in data.items()}
    return False, None


def _float(data: Any, path: str) -> tuple[bool, Any]:
    if type(data) not in (int, float, str):
        return False, None
    try:
        value = float(data)  # YAML 1.1 reads 1e-4 as a string
    except ValueError:
        return False, None
    except OverflowError:  # an integer that no float holds
        value = math.inf
    if not math.isfinite(value):
        raise ConfigError(f"{path}: {value}; give a finite number")
    return True, value


def _describe(annotation: Any) -> str:
    names = []
    for option in options_of(annotation):
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
        out = {"kind": kind_of(type(value))} if len(parts_of(annotation)) > 1 else {}
        return out | {name: dump(getattr(value, name), hint) for name, (hint, _) in fields_of(type(value)).items()}
    if isinstance(value, dict):
        options = [o for o in options_of(annotation) if typing.get_origin(o) is dict]
        item = typing.get_args(options[0])[1] if options else None
        return {key: dump(entry, item) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        options = [o for o in options_of(annotation) if typing.get_origin(o) in (tuple, list, Sequence)]
        item = typing.get_args(options[0])[0] if options else None
        return [dump(entry, item) for entry in value]
    return value
