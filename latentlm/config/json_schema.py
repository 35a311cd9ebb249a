"""The JSON schema (draft 2020-12) of a dataclass tree, from which editors complete and check recipes.

It says what `schema.parse` says about names and types; ranges and what goes with what are checked by the parts alone.
"""

import typing
from collections.abc import Sequence
from enum import Enum
from typing import Any

from latentlm.config.docs import read_docs
from latentlm.config.reference import REQUIRED, default_of
from latentlm.config.schema import dump, fields_of, kind_of, options_of, parts_of

_TYPES = {bool: "boolean", int: "integer", str: "string", type(None): "null", dict: "object"}
# YAML 1.1 reads 1e-4 as text, and the parser takes it for the number that it is
_NUMBER = {"type": ["number", "string"], "pattern": r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.?inf$|^\.?nan$"}


def json_schema(root: type, title: str) -> dict[str, Any]:
    """The schema of data that `schema.parse` reads as `root`."""
    definitions: dict[str, Any] = {}
    whole = _part(root, definitions) | {"title": title}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **whole,
        "$defs": {name: definitions[name] for name in sorted(definitions)},
    }


def definition_name(part: type) -> str:
    """Name of a part below ``$defs``: two modules may have classes of one name."""
    return f"{part.__module__.rpartition('.')[2]}.{part.__name__}"


def _part(part: type, definitions: dict[str, Any]) -> dict[str, Any]:
    docs, fields = read_docs(part), fields_of(part)
    properties: dict[str, Any] = {} if "kind" in fields else {"kind": {"const": kind_of(part)}}
    required = [name for name in fields if default_of(part, name) == REQUIRED]
    for name, (annotation, field) in fields.items():
        about: dict[str, Any] = {"description": docs.keys[name]} if name in docs.keys else {}
        if name not in required:
            default = field.default_factory() if callable(field.default_factory) else field.default
            about["default"] = dump(default, annotation)
        properties[name] = about | _type(annotation, definitions)
    about = {"description": docs.summary, "type": "object", "properties": properties}
    return about | ({"required": required} if required else {}) | {"additionalProperties": False}


def _type(annotation: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    parts = parts_of(annotation)
    choices = [_reference(part, definitions, with_kind=len(parts) > 1) for part in parts]
    if len(parts) > 1:
        bare = [kind_of(p) for p in parts if not any(default_of(p, name) == REQUIRED for name in fields_of(p))]
        choices = [{"oneOf": [*choices, *([{"enum": bare}] if bare else [])]}]
    choices += [_plain(option, definitions) for option in options_of(annotation) if option not in parts]
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def _reference(part: type, definitions: dict[str, Any], with_kind: bool) -> dict[str, Any]:
    if (name := definition_name(part)) not in definitions:
        definitions[name] = {}  # a part inside itself refers to itself
        definitions[name] = _part(part, definitions)
    return {"$ref": f"#/$defs/{name}"} | ({"required": ["kind"]} if with_kind else {})


def _plain(option: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, items = typing.get_origin(option), typing.get_args(option)
    if origin is typing.Literal:
        return {"enum": list(items)}
    if isinstance(option, type) and issubclass(option, Enum):
        return {"enum": [member.value for member in option]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(items[1], definitions)}
    if origin in (tuple, list, Sequence):
        return {"type": "array", "items": _type(items[0], definitions)}
    return dict(_NUMBER) if option is float else {"type": _TYPES[option]} if option in _TYPES else {}
