"""``key.path=value`` assignments on the plain data of a recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentlm.config.schema import ConfigError
from latentlm.config.yaml_reader import MAX_DEPTH, read_value

PATHS = {"images": "image_folder"}  # what a bare path as data.source is short for; of text it is a corpus


def split(assignment: str) -> tuple[str, Any]:
    """``a.b=value`` as its key and its value, which is YAML."""
    key, separator, text = assignment.partition("=")
    if not separator or not all(key.split(".")) or key.count(".") > MAX_DEPTH:
        shown = assignment if len(assignment) < 80 else f"{assignment[:80]}..."
        raise ConfigError(f"override '{shown}': write key.path=value, for example training.learning_rate=1e-4")
    value = read_value(text, f"override '{key}'")
    if isinstance(value, str) and value.startswith("~/"):  # the shell does not expand it after a key
        value = str(Path(value).expanduser())
    return key, value


def apply(data: dict[str, Any], pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Assign key paths in a copy of plain data.

    A new ``kind`` starts its block afresh, wherever it is: the keys of the old kind mean nothing to it. After
    ``data.source=PATH`` keys of the source may follow, such as ``data.source.test=PATH``. A block is assigned before
    the keys in it, in whatever order they are written. A number is a place in a list, ``data.parts.1.source=PATH``.
    """
    data, given = _copy(data), dict(pairs)
    for key, value in sorted(pairs, key=_outside_in):
        *parents, last = key.split(".")
        node: Any = data
        for depth, name in enumerate(parents):
            parent = _place(node, name, key)
            child: Any = node.get(parent) if isinstance(node, dict) else node[parent]
            if isinstance(child, str) and parents == ["data", "source"] and (last != "kind" or "data.source" in given):
                kind = value if last == "kind" else PATHS.get(node.get("kind", "text"), "corpus")
                child = node[parent] = {"kind": kind, "path": child}
            if child is None or (last == "kind" and depth == len(parents) - 1 and isinstance(child, str)):
                child = node[parent] = {}
            if not isinstance(child, dict | list):
                raise ConfigError(f"override '{key}': '{'.'.join(parents[: depth + 1])}' is not a block")
            node = child
        if last == "kind" and isinstance(node, dict) and node.get("kind") != value:
            block = ".".join(parents)
            if isinstance(given.get(block), dict) and "kind" in node:
                raise ConfigError(
                    f"override '{key}': '{block}' is given with kind {node['kind']}; leave one of them out"
                )
            node.clear()
        node[_place(node, last, key)] = value
    return data


def _place(node: Any, name: str, key: str) -> Any:
    """A key of a block as it is, a place in a list as a number."""
    if isinstance(node, dict):
        return name
    if not name.isdecimal() or int(name) >= len(node):
        places = f"0 to {len(node) - 1}" if len(node) > 1 else "0" if node else "none"
        raise ConfigError(f"override '{key}': '{name}' is no place in this list; it has {places}")
    return int(name)


def _outside_in(pair: tuple[str, Any]) -> tuple[int, bool]:
    key = pair[0]
    return key.count("."), not key.endswith(".kind")


def override(data: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply ``a.b=value`` assignments to a copy of plain data."""
    return apply(data, [split(text) for text in assignments])


def _copy(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _copy(value) for key, value in data.items()}
    return [_copy(value) for value in data] if isinstance(data, list) else data
