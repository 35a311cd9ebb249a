"""``key.path=value`` assignments on the plain data of a recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from latentlm.config.schema import ConfigError


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
