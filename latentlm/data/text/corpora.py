"""Plain texts and conversations from a hub data set, a file or a folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentlm.data.questions import Item
from latentlm.data.text.encode import SETS

Dataset = Any  # datasets.Dataset: too slow to import for checking a recipe
_FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".txt": "text"}


@dataclass(frozen=True)
class Text:
    """Documents out of the column ``text``, or of ``prompt`` and ``completion`` joined. Blank ones are left out.

    Checked:   tests/data/text/test_corpora.py - every format, every error line.

    Args:
        source: hub data set, folder, or file (.jsonl .json .parquet .csv, or .txt with a document on each line).
        subset: configuration of a hub data set.
        split: e.g. ``train`` or ``train[:1%]``; a file has only ``train``.
        max_documents: how many to take from the start; None: all.
        spans: read the column ``spans``, lists of character offsets ``[start, end]``; without it
            ``batch.pairs: {kind: phrases}`` finds some.
    """

    source: str
    subset: str | None = None
    split: str = "train"
    max_documents: int | None = None
    spans: bool = False

    def __post_init__(self) -> None:
        _check_count(self.max_documents)

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return SETS if self.spans else ()

    def documents(self) -> list[dict]:
        """Text and spans of each row, in the order of the source."""
        data = _load(self.source, self.subset, self.split)
        columns = ["text"] if "text" in data.column_names else ["prompt", "completion"]
        rows = _take(data, [*columns, "spans"] if self.spans else columns, self.max_documents, self.source)
        documents = []
        for number, row in enumerate(rows):
            parts = [row[column] for column in columns]
            if not all(isinstance(part, str) for part in parts):
                raise ValueError(f"source: row {number} of {self.source} has no string in {columns}; leave it out")
            if text := "".join(parts).strip("\n"):
                spans = _spans(row["spans"], number, self.source) if self.spans else []
                documents.append({"text": "".join(parts) if spans else text, "spans": spans})
        if not documents:
            raise ValueError(f"source: all texts of {self.source} are blank; choose another source or split")
        return documents

    def items(self) -> list[Item]:
        """Plain text asks nothing."""
        return []


@dataclass(frozen=True)
class Chat:
    """Conversations out of the column ``messages``, rendered with the tokenizer's chat template when encoded.

    Checked:   tests/data/text/test_corpora.py - encoding is the template's own.

    Args:
        source, subset, split, max_documents: as in `Text`.
    """

    source: str
    subset: str | None = None
    split: str = "train"
    max_documents: int | None = None

    def __post_init__(self) -> None:
        _check_count(self.max_documents)

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return ()

    def documents(self) -> list[dict]:
        """Messages of each row; ``text`` is what they say, one below the other, and where chunks are drawn from."""
        rows = _take(_load(self.source, self.subset, self.split), ["messages"], self.max_documents, self.source)
        documents = []
        for number, row in enumerate(rows):
            messages = row["messages"]
            if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
                raise ValueError(f"source: row {number} of {self.source}: messages need strings role and content")
            messages = [{"role": message["role"], "content": message["content"]} for message in messages]
            text = "\n".join(message["content"] for message in messages)
            documents.append({"text": text, "spans": [], "messages": messages})
        return documents

    def items(self) -> list[Item]:
        """Conversations ask nothing."""
        return []


def _is_message(message: object) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def _spans(spans: object, number: int, source: str) -> list[list[int]]:
    if isinstance(spans, list) and all([type(offset) for offset in pair or ()] == [int, int] for pair in spans):
        return spans
    raise ValueError(f"source: row {number} of {source}: spans must be a list of [start, end]; got {spans!r}")


def _check_count(max_documents: int | None) -> None:
    if max_documents is not None and max_documents < 1:
        raise ValueError(f"max_documents: {max_documents}; set it to 1 or more, or leave it out")


def _load(source: str, subset: str | None, split: str) -> Dataset:
    path = Path(source)
    if path.is_file() and path.suffix not in _FORMATS:
        raise ValueError(f"source: cannot read {path.suffix or 'no suffix'} of {source}; use {' '.join(_FORMATS)}")
    if not path.exists() and (path.suffix in _FORMATS or path.is_absolute() or source.startswith(".")):
        raise ValueError(f"source: there is no file or folder {source}; check the path")
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        if path.is_file():
            return load_dataset(_FORMATS[path.suffix], data_files={"train": source}, split=split)
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
