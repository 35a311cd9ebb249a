"""Every key below a dataclass, out of its types and docstrings: what it means, what it may be, what it is by default.

A key is a dotted path as in an override, with ``*`` for names that the user chooses (``objective.terms.*.target``).
"""

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

import yaml

from latentlm.config.docs import read_docs
from latentlm.config.schema import dump, fields_of, kind_of, options_of, parts_of

REQUIRED = "required"
_WORDS = {bool: "true or false", int: "integer", float: "number", str: "text", dict: "mapping", type(None): "null"}


@dataclass(frozen=True)
class Key:
    """One key of a recipe.

    Args:
        path: dotted path.
        part: class that has the key.
        annotation: its type.
        meaning: what the docstring of its class says.
        default: its default as YAML, or `REQUIRED`.
    """

    path: str
    part: type
    annotation: Any
    meaning: str
    default: str

    @property
    def kinds(self) -> tuple[type, ...]:
        """Parts that the key, or an entry of its list or mapping, may be."""
        return parts_below(self.annotation)

    @property
    def choices(self) -> str:
        """Its type in words."""
        return describe(self.annotation)


def parts_below(annotation: Any) -> tuple[type, ...]:
    """Parts that a type can hold, itself or as entries of a list or mapping."""
    found: list[type] = []
    for option in options_of(annotation):
        found += parts_of(option)
        if typing.get_origin(option) in (tuple, list, dict, Sequence):
            found += [part for item in typing.get_args(option) if item is not ... for part in parts_below(item)]
    return tuple(dict.fromkeys(found))


def describe(annotation: Any) -> str:
    """A type in words: ``number or null``, ``list of integer``, ``online | ema | frozen``."""
    options = options_of(annotation)
    parts = parts_of(annotation)
    kinds = " | ".join(map(kind_of, parts)) if len(parts) > 1 else "".join(f"{kind_of(part)} block" for part in parts)
    rest = [_in_words(option) for option in options if option not in parts and not (option is int and float in options)]
    return " or ".join(dict.fromkeys([kinds, *rest] if parts else rest))


def _in_words(option: Any) -> str:
    """One type that is not a part."""
    origin, items = typing.get_origin(option), typing.get_args(option)
    if origin is typing.Literal:
        return " | ".join(map(str, items))
    if isinstance(option, type) and issubclass(option, Enum):
        return " | ".join(str(member.value) for member in option)
    if origin is dict and items[1] is not Any:
        return f"mapping of names to {describe(items[1])}"
    if origin in (tuple, list, Sequence):
        return f"list of {describe(items[0])}"
    return _WORDS.get(origin or option, "any value" if option is Any else getattr(option, "__name__", str(option)))


@cache
def default_of(part: type, name: str) -> str:
    """The default of a key as it would be written in YAML, or `REQUIRED`."""
    annotation, field = fields_of(part)[name]
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return REQUIRED
    return flow(_brief(value, annotation))


def flow(value: Any) -> str:
    """Plain data as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip()
    return text.removesuffix("...").strip()


def _brief(value: Any, annotation: Any) -> Any:
    """`dump` without the keys that have their defaults; a part without any other is its kind."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return dump(value, annotation)
    kind = kind_of(type(value)) if len(parts_of(annotation)) > 1 else None
    given = {}
    for name, (hint, field) in fields_of(type(value)).items():
        entry = getattr(value, name)
        if field.default is dataclasses.MISSING or entry != field.default:
            given[name] = _brief(entry, hint)
    given = {name: entry for name, entry in given.items() if entry not in ({}, [])}
    return {"kind": kind, **given} if kind and given else kind or given


def keys_of(part: type, path: str = "") -> list[Key]:
    """The keys of one part, not those of the parts below it."""
    meanings = read_docs(part).keys
    return [
        Key(f"{path}.{name}".strip("."), part, annotation, meanings.get(name, ""), default_of(part, name))
        for name, (annotation, _) in fields_of(part).items()
    ]


@dataclass(frozen=True)
class _Step:
    """One word of a path; an optional one narrows it down: the kind of a part, or the name of an entry."""

    word: str
    optional: bool = False


def _walk(
    part: type, path: str, steps: tuple[_Step, ...], above: tuple[type, ...]
) -> Iterator[tuple[Key, tuple[_Step, ...]]]:
    for key in keys_of(part, path):
        name = key.path.rpartition(".")[2]
        here = (*steps, _Step(name))
        named = _has_names(key.annotation)
        yield key, (*here, _Step("*", optional=True)) if named else here
        for kind in key.kinds:
            if kind not in (*above, part):  # a part inside itself is not entered again
                further = (*here, _Step("*")) if named else here
                below = key.path + ".*" if named else key.path
                yield from _walk(kind, below, (*further, _Step(kind_of(kind), optional=True)), (*above, part))


def walk(root: type) -> Iterator[Key]:
    """Every key below a root, depth first; once for each class that has it."""
    seen = set()
    for key, _ in _walk(root, "", (), ()):
        if (key.path, key.part) not in seen:
            seen.add((key.path, key.part))
            yield key


def find(root: type, path: str) -> list[Key]:
    """What a dotted key may be, one entry for each class that has it; empty where there is no such key.

    A name that the user chooses may be ``*`` or any word, and kinds may be in the path to narrow it down:
    ``objective.terms.*.target.ema.momentum``.
    """
    words = path.split(".")
    found = {(key.path, key.part): key for key, steps in _walk(root, "", (), ()) if _leads(steps, words)}
    return list(found.values())


def _leads(steps: Sequence[_Step], words: Sequence[str]) -> bool:
    """Whether the words of a path lead through these steps to their end."""
    if not steps or not words:
        return not words and all(step.optional for step in steps)
    if steps[0].word in (words[0], "*") and _leads(steps[1:], words[1:]):
        return True
    return steps[0].optional and _leads(steps[1:], words)


def all_parts(root: type) -> dict[type, list[str]]:
    """Every part below a root, in the order of the keys, and the keys that can hold it."""
    found: dict[type, list[str]] = {}
    for key in walk(root):
        for kind in key.kinds:
            found.setdefault(kind, []).append(key.path + (".*" if _has_names(key.annotation) else ""))
    return {part: list(dict.fromkeys(paths)) for part, paths in found.items()}


def _has_names(annotation: Any) -> bool:
    """Whether a key's entries are parts with names that the user chooses."""
    return any(typing.get_origin(option) is dict and parts_below(option) for option in options_of(annotation))
