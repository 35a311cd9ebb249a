"""Rows of published and users' own files: JSON lines, JSON lists and CSV."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_rows(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a .jsonl, .json or .csv file; ValueError with file and row where one of `keys` is not a string."""
    if not path.is_file():
        raise ValueError(f"folder: {path.name} is missing in {path.parent}; give the folder of the published files")
    with path.open(encoding="utf-8", newline="") as file:
        try:
            if path.suffix == ".csv":
                rows: list[Any] = list(csv.DictReader(file))
            elif path.suffix == ".json":
                rows = json.load(file)
            else:
                rows = [_json(line) for line in file]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text; save it as UTF-8") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON (line {error.lineno}); use .jsonl for JSON lines") from error
    for number, row in enumerate(rows, start=2 if path.suffix == ".csv" else 1):
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in keys):
            named = " and ".join([", ".join(keys[:-1]), keys[-1]] if len(keys) > 1 else keys)
            raise ValueError(f"{path} line {number}: not a JSON row with the strings {named}")
    return rows


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None  # told with its line number
