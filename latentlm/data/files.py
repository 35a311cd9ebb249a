"""Rows of published and users' own files: JSON lines, JSON lists and CSV; and where published files lie."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def find_folder(folder: str | None, hub: str, inside: str, file: str, pattern: str = "*") -> Path:
    """The folder with the published `file`: a local one, or that of a hub data set, fetched once.

    Args:
        folder: local folder, or a whole local copy of the hub data set; None: `hub`.
        hub: data set on the hub.
        inside: its folder with the files; "" where they lie at the top.
        file: named where there is no such folder.
        pattern: of the names to fetch.
    """
    if folder is not None:
        if not Path(folder).is_dir():
            raise ValueError(f"folder: {folder} is not a folder; give the one with {file}")
        return Path(folder) / inside if (Path(folder) / inside).is_dir() else Path(folder)
    from huggingface_hub import snapshot_download

    try:
        copy = snapshot_download(hub, repo_type="dataset", allow_patterns=f"{inside}/{pattern}" if inside else pattern)
        return Path(copy) / inside
    except (OSError, ValueError) as error:
        raise ValueError(f"hub: cannot fetch {hub}; go online once, or set folder to a local copy") from error


def read_rows(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a .jsonl, .json or .csv file; ValueError with file and line where one of `keys` is not a string."""
    if not path.is_file():
        raise ValueError(f"folder: {path.name} is missing in {path.parent}; give the folder of the published files")
    named = " and ".join([", ".join(keys[:-1]), keys[-1]] if len(keys) > 1 else keys)
    with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets put a mark before the first column
        try:
            if path.suffix == ".csv":
                return _csv(file, path, keys, named)
            rows: list[Any] = json.load(file) if path.suffix == ".json" else [_json(line) for line in file]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text; save it as UTF-8") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON (line {error.lineno}); use .jsonl for JSON lines") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in keys):
            raise ValueError(f"{path} line {number}: not a JSON row with the strings {named}")
    return rows


def _csv(file: Iterable[str], path: Path, keys: Sequence[str], named: str) -> list[dict[str, Any]]:
    lines = csv.DictReader(file)
    columns = lines.fieldnames or []
    if set(keys) - set(columns):
        found = " | ".join(columns)
        raise ValueError(f"{path} line 1: has the columns {found}; name {named} there, with commas between")
    rows = []
    for row in lines:
        if None in row or None in row.values():  # more values than columns, or fewer
            raise ValueError(
                f"{path} line {lines.line_num}: not {len(columns)} values with commas between; quote names with a comma"
            )
        rows.append(row)
    return rows


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None  # told with its line number
