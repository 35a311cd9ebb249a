"""Plain texts and conversations from a hub data set, a file or a folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentlm.data.questions import Item
from latentlm.data.text.encode import SETS

Dataset = Any  # datasets.Dataset: too slow to import for checking a recipe
FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".txt": "text"}


@dataclass(frozen=True)
class Corpus:
    """Documents out of a hub data set, a file or a folder; its columns decide how they are read.

    ``messages`` are rendered with the tokenizer's chat template when encoded; without them ``text`` is a document, or
    ``prompt`` and ``completion`` joined. Blank ones are left out. A column ``spans`` beside them holds lists of
    character offsets ``[start, end]``; without it ``data.span_pairs: {kind: phrases}`` finds some.

    Checked:   tests/data/text/test_corpora.py - every format, every error line; encoding is the template's own.

    Args:
        path: hub data set, folder, or file (.jsonl .json .parquet .csv, or .txt with a document on each line).
        subset: configuration of a hub data set.
        split: e.g. ``train`` or ``train[:1%]``; a file has only ``train``.
        max_documents: how many to take from the start; None: all.
    """

    path: str
    subset: str | None = None
    split: str = "train"
    max_documents: int | None = None

    def __post_init__(self) -> None:
        if self.max_documents is not None and self.max_documents < 1:
            raise ValueError(f"max_documents: {self.max_documents}; set it to 1 or more, or leave it out")

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give: whether they do is known once the columns are."""
        return SETS

    def documents(self) -> list[dict]:
        """Text and spans of each row, in the order of the source."""
        data = _load(self.path, self.subset, self.split)
        if "messages" in data.column_names:
            return self._conversations(_take(data, ["messages"], self.max_documents, self.path))
        columns = ["text"] if "text" in data.column_names else ["prompt", "completion"]
        marked = ["spans"] if "spans" in data.column_names else []
        documents = []
        for number, row in enumerate(_take(data, columns + marked, self.max_documents, self.path)):
            parts = [row[column] for column in columns]
            if not all(isinstance(part, str) for part in parts):
                raise ValueError(f"source: row {number} of {self.path} has no string in {columns}; leave it out")
            if text := "".join(parts).strip("\n"):
                spans = _spans(row["spans"], number, self.path) if marked else []
                documents.append({"text": "".join(parts) if spans else text, "spans": spans})
        if not documents:
            raise ValueError(f"source: all texts of {self.path} are blank; choose another source or split")
        return documents

    def _conversations(self, rows: list[dict]) -> list[dict]:
        """Messages of each row; ``text`` is what they say, one below the other, and where chunks are drawn from."""
        documents = []
        for number, row in enumerate(rows):
            messages = row["messages"]
            if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
                raise ValueError(f"source: row {number} of {self.path}: messages need strings role and content")
            messages = [{"role": message["role"], "content": message["content"]} for message in messages]
            text = "\n".join(message["content"] for message in messages)
            documents.append({"text": text, "spans": [], "messages": messages})
        return documents

    def items(self) -> list[Item]:
        """Texts of one's own ask nothing."""
        return []


def _is_message(message: object) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def _spans(spans: object, number: int, source: str) -> list[list[int]]:
    if isinstance(spans, list) and all([type(offset) for offset in pair or ()] == [int, int] for pair in spans):
        return spans
    raise ValueError(f"source: row {number} of {source}: spans must be a list of [start, end]; got {spans!r}")


def _load(source: str, subset: str | None, split: str) -> Dataset:
    path = Path(source)
    if path.is_file() and path.suffix not in FORMATS:
        raise ValueError(f"source: cannot read {path.suffix or 'no suffix'} of {source}; use {' '.join(FORMATS)}")
    if not path.exists() and (path.suffix in FORMATS or path.is_absolute() or source.startswith(".")):
        raise ValueError(f"source: there is no file or folder {source}; check the path")
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        if path.is_file():
            return load_dataset(FORMATS[path.suffix], data_files={"train": source}, split=split)
        return load_dataset(source, subset, split=split)
    except (OSError, ValueError, DatasetsError, StopIteration) as error:  # the last one: a file without rows
        reason = _bad_line(path) or " ".join(str(error.__cause__ or error).split())[:200] or "no rows"
        raise ValueError(f"source: cannot read split {split} of {source} ({reason}); check its format") from error


def _bad_line(path: Path) -> str | None:
    """Which line of a .jsonl file cannot be read: the reader's own message counts in blocks."""
    if path.suffix != ".jsonl" or not path.is_file():
        return None
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            json.loads(line or b"{}")
        except UnicodeDecodeError:
            return f"line {number} is not UTF-8 text"
        except ValueError:
            return f"line {number} is not JSON"
    return None


def _take(data: Dataset, columns: list[str], max_documents: int | None, source: str) -> list[dict]:
    if missing := [column for column in columns if column not in data.column_names]:
        raise ValueError(f"source: {source} has the columns {data.column_names}; add or rename {', '.join(missing)}")
    if not len(data):
        raise ValueError(f"source: {source} is empty; choose another source or split")
    count = len(data) if max_documents is None else min(max_documents, len(data))
    try:
        return data.select_columns(columns).select(range(count)).to_list()
    except UnicodeDecodeError as error:
        reason = _bad_line(Path(source)) or "it is not UTF-8 text"
        raise ValueError(f"source: cannot read {source} ({reason}); save it as UTF-8") from error
