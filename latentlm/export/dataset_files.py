"""Training texts and test questions of a data part as files: for training, or asking, elsewhere."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from latentlm.config.schema import ConfigError, kind_of
from latentlm.data import Images, TextSource
from latentlm.whole_files import is_empty, whole_folder


def write_texts(data: TextSource | Images, folder: Path) -> dict[Path, int]:
    """Write ``train.jsonl`` and ``test.jsonl``, and say how many lines each has.

    A training line is a document: ``text``, ``spans`` (character offsets), and what else the data give, such as the
    messages of a conversation. ``data.source=train.jsonl`` reads it back. A test line has the
    fields of a `Question`; data that ask nothing have no test file.

    Args:
        data: of a recipe.
        folder: does not exist yet or is empty.
    """
    if isinstance(data, Images):
        raise ConfigError(f"export-data: {kind_of(type(data))} have no texts; name a recipe that trains on text")
    if not is_empty(folder):
        raise ConfigError(f"export-data: {folder} is not empty; name a new folder")
    rows = {
        "train.jsonl": [document.to_row() for document in data.documents()],
        "test.jsonl": [asdict(question) for question in data.questions()],
    }
    with whole_folder(folder) as partial:
        return {folder / name: _write(partial / name, lines) for name, lines in rows.items() if lines}


def _write(path: Path, rows: Iterable[dict]) -> int:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)
