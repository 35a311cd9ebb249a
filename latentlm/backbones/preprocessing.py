"""How a checkpoint's own processor standardises and resizes images, read from the files beside its weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from latentlm.config.schema import ConfigError

FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


@dataclass(frozen=True)
class Preprocessing:
    """What a processor says.

    Attributes:
        mean, std: of the channels, for ``(x / 255 - mean) / std``.
        size: side of the square that the network reads; None where the processor does not say one.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None


def read_preprocessing(name: str | Path) -> Preprocessing | None:
    """That of a folder or hub name; None where it has none, or one that does not standardise."""
    for file in FILES:
        found = _file(str(name), file)
        if found is None:
            continue
        try:
            told = json.loads(Path(found).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"model.name: {file} of {name} cannot be read ({error}); mend or remove it") from error
        told = told.get("image_processor", told) if isinstance(told, dict) else {}
        mean, std = told.get("image_mean"), told.get("image_std")
        if mean and std and told.get("do_normalize", True):
            return Preprocessing(tuple(map(float, mean)), tuple(map(float, std)), _size(told))
    return None


def _file(name: str, file: str) -> str | None:
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path / file) if (path / file).is_file() else None
    options = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    return cached_file(name, file, **options)


def _size(told: dict[str, Any]) -> int | None:
    """The crop where there is one, else the size that images are brought to."""
    size = told.get("crop_size") if told.get("do_center_crop") and told.get("crop_size") else told.get("size")
    if isinstance(size, int):
        return size
    sides = {size.get(key) for key in ("height", "width")} if isinstance(size, dict) else set()
    side = sides.pop() if len(sides) == 1 else None
    return side if side is not None or not isinstance(size, dict) else size.get("shortest_edge")
