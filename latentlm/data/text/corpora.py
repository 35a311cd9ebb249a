"""Texts and conversations from a hub data set, a file or a folder."""

import glob
import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from latentlm.data.documents import Document, conversation
from latentlm.data.questions import Question
from latentlm.data.text.encode import SETS
from latentlm.data.text.encoding_report import DocumentError, some

logger = logging.getLogger(__name__)

Dataset = Any  # datasets.Dataset: too slow to import for checking a recipe
Row = Mapping[str, Any]
FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".txt": "text"}
_MARK = b"\xef\xbb\xbf"  # some editors and spreadsheets put it before the first character of UTF-8
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Corpus:
    """Documents of one's own; the columns decide what they are.

    ``messages``: conversations, which the tokenizer's chat template writes. ``text``: plain text. ``prompt`` and
    ``completion``: joined, a turn of the user and one of the assistant. ``text_a`` and ``text_b``, or a list ``texts``:
    texts that belong together (translations, paraphrases), one below the other, each a unit of the grain ``column``.
    Contents of messages may be lists of text parts, and a message may be tool calls alone. With ``spans``, lists
    of character offsets ``[start, end]`` into the text (of a conversation into its contents, joined by line breaks),
    spans are marked. Blank texts are left out; rows that cannot be read are left out, counted and named.

    Checked:   tests/data/text/test_corpora.py - every format, every error line.

    Args:
        path: hub data set, folder, or file (.jsonl .json .parquet .csv, or .txt with a document on each line).
        subset: configuration of a hub data set.
        split: e.g. ``train`` or ``train[:1%]``; a file has only ``train``.
        max_documents: how many to take from the start; None: all.
        streaming: rows are read one by one, without a copy of all of them on disk. All are kept in memory; for what
            does not fit there give ``kind: mixture`` one part with ``streaming: true``.
    """

    path: str
    subset: str | None = None
    split: str = "train"
    max_documents: int | None = None
    streaming: bool = False

    def __post_init__(self) -> None:
        if self.max_documents is not None and self.max_documents < 1:
            raise ValueError(f"max_documents: {self.max_documents}; set it to 1 or more, or leave it out")

    @property
    def sets(self) -> tuple[str, ...]:
        """Index sets its documents can give, if they have spans."""
        return SETS

    def documents(self) -> list[Document]:
        """One for each row, in the order of the source."""
        if self.streaming:
            data, read = self.stream()
            rows = list(data)
        else:
            data = _load(self.path, self.subset, self.split)
            columns, read = _reader(data.column_names, self.path)
            optional = [column for column in ("spans", "related", "target_span_ids") if column in data.column_names]
            rows = _take(data, [*columns, *optional], self.max_documents, self.path)
        documents, unusable = [], []
        for number, row in enumerate(rows):
            try:
                if (document := read(row, f"row {number}")) is not None:
                    documents.append(document)
            except DocumentError as error:
                unusable.append(f"row {number}: {error}")
        if not documents and unusable:
            raise ValueError(f"source: no row of {self.path} can be used: {some(unusable)}")
        if not documents:
            raise ValueError(f"source: all texts of {self.path} are blank; choose another source or split")
        if unusable:
            logger.warning("%d of %d rows of %s left out: %s", len(unusable), len(rows), self.path, some(unusable))
        return documents

    def stream(self) -> tuple[Any, "Reader"]:
        """The rows as a `datasets.IterableDataset`, and what makes a document of one."""
        data = _load(self.path, self.subset, self.split, streaming=True)
        try:
            first = next(iter(data), None)
        except Exception as error:  # of every format and of the network, each its own
            reason = _bad_line(Path(self.path)) or " ".join(str(error.__cause__ or error).split())[:200]
            raise ValueError(f"source: cannot read {self.path} ({reason}); check its format") from error
        if first is None:
            raise ValueError(f"source: {self.path} is empty; choose another source or split")
        _, read = _reader(list(first), self.path)
        return (data if self.max_documents is None else data.take(self.max_documents)), read

    def rows(self) -> list[Row]:
        """All columns of each row, as they are."""
        data = _load(self.path, self.subset, self.split)
        return _take(data, data.column_names, self.max_documents, self.path)

    def questions(self) -> list[Question]:
        """A user's texts come without questions."""
        return []


Reader = Callable[[Row, str], Document | None]


def _reader(names: Sequence[str], source: str) -> tuple[list[str], Reader]:
    """Columns to read, and the document of a row; None where that is blank."""
    if "messages" in names:
        return ["messages"], _of_messages
    for columns in (["text"], ["prompt", "completion"], ["text_a", "text_b"]):
        if set(columns) <= set(names):
            return columns, partial(_of_text, columns=columns)
    if "texts" in names:
        return ["texts"], _of_texts
    raise ValueError(
        f"source: {source} has the columns {some(names, count=20, length=40)}; rename one to text (plain text) or "
        "messages (conversations), or two to prompt and completion, or to text_a and text_b"
    )


def _of_messages(row: Row, origin: str) -> Document:
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise DocumentError("messages must be a list with strings role and content")
    return conversation([_message(message) for message in messages], **_marks(row), origin=origin)


def _message(message: Any) -> dict[str, Any]:
    """As chat templates read it: text parts joined, and no keys without a value."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise DocumentError("messages must be a list with strings role and content")
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, list):
        other = [part.get("type") if isinstance(part, dict) else type(part).__name__ for part in content]
        if set(other) - {"text"}:
            kind = next(kind for kind in other if kind != "text")
            raise DocumentError(f"a content has a part of type {kind}; only text can be read, leave the row out")
        content = "".join(part["text"] for part in content)
    if content is None and calls:
        content = ""
    if not isinstance(content, str):
        raise DocumentError("messages must be a list with strings role and content")
    rest = {key: value for key, value in message.items() if value is not None and key not in ("role", "content")}
    return {"role": message["role"], "content": content, **rest}


def _of_text(row: Row, origin: str, columns: Sequence[str]) -> Document | None:
    parts = [row[column] for column in columns]
    if wrong := [column for column, part in zip(columns, parts, strict=True) if not isinstance(part, str)]:
        raise DocumentError(f"{wrong[0]} is not a string")
    marks = _marks(row)
    if not "".join(parts).strip():
        return None
    if columns == ["text"]:
        return Document(parts[0] if marks["spans"] else parts[0].strip("\n"), **marks, origin=origin)
    if columns == ["text_a", "text_b"]:
        return _side_by_side(parts, marks, origin)
    prompt, completion = parts
    if not completion.strip():
        raise DocumentError("completion is blank")
    start, length = len(prompt), len(prompt) + len(completion)
    turns = [(0, start, "user")] if prompt.strip() else []
    units = {"turn": [*turns, (start, length, "assistant")], "column": [(0, start, ""), (start, length, "")]}
    return Document(prompt + completion, **marks, units=units, origin=origin)


def _of_texts(row: Row, origin: str) -> Document | None:
    texts = row["texts"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DocumentError("texts is not a list of strings")
    return _side_by_side(texts, _marks(row), origin)


def _side_by_side(texts: Sequence[str], marks: dict[str, Any], origin: str) -> Document | None:
    """Texts one below the other; the first spans count from the start of the whole."""
    if not any(text.strip() for text in texts):
        return None
    if blank := [number for number, text in enumerate(texts) if not text.strip()]:
        raise DocumentError(f"text {blank[0]} is blank")
    starts = [0, *accumulate(len(text) + 1 for text in texts)]
    units = [(start, start + len(text), "") for start, text in zip(starts, texts, strict=False)]
    return Document("\n".join(texts), **marks, units={"column": units}, origin=origin)


def _marks(row: Row) -> dict[str, Any]:
    """Spans and what is said of them."""
    marks = {"spans": _pairs_of_numbers(row.get("spans") or [], "spans must be a list of [start, end]")}
    if row.get("related") is not None:
        marks["related"] = _pairs_of_numbers(row["related"], "related must be a list of pairs of span numbers")
    if row.get("target_span_ids") is not None:
        marks["target_span_ids"] = list(row["target_span_ids"])
    return marks


def _pairs_of_numbers(pairs: object, must: str) -> list[Any]:
    if isinstance(pairs, list) and all(isinstance(p, list) and [type(n) for n in p] == [int, int] for p in pairs):
        return [tuple(pair) for pair in pairs]
    raise DocumentError(f"{must}, got {str(pairs)[:60]}")


def _load(source: str, subset: str | None, split: str, streaming: bool = False) -> Dataset:
    path = Path(source)
    suffix = path.suffix.lower()
    if path.is_file() and suffix not in FORMATS:
        raise ValueError(f"source: cannot read {suffix or 'no suffix'} of {source}; use {' '.join(FORMATS)}")
    if not path.exists() and (suffix in FORMATS or path.is_absolute() or source.startswith(".")):
        raise ValueError(f"source: there is no file or folder {source}; check the path")
    if path.is_dir() and glob.has_magic(str(path.resolve())):
        raise ValueError(f"source: folder {source} has one of * ? [ in its path; rename it, or name a file in it")
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        if path.is_file():
            return _load_file(path, split, streaming)
        return load_dataset(source, subset, split=split, streaming=streaming)
    except (OSError, ValueError, DatasetsError, StopIteration) as error:  # the last one: a file without rows
        reason = _bad_line(path) or " ".join(str(error.__cause__ or error).split())[:200] or "no rows"
        raise ValueError(f"source: cannot read split {split} of {source} ({reason}); check its format") from error


def _load_file(path: Path, split: str, streaming: bool) -> Dataset:
    from datasets import load_dataset

    with path.open("rb") as file:
        start = file.read(len(_MARK))
    kind = FORMATS[path.suffix.lower()]
    if start != _MARK:
        # escaped: a path is not a pattern
        files = {"train": glob.escape(str(path.resolve()))}
        return load_dataset(kind, data_files=files, split=split, streaming=streaming)
    if streaming:
        raise ValueError("it begins with a byte order mark, which a stream does not skip; save it without one")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(path.read_bytes()[len(_MARK) :])
        return load_dataset(kind, data_files={"train": glob.escape(str(copy))}, split=split)


def _bad_line(path: Path) -> str | None:
    """Which line of a text file cannot be read: the reader's own message counts in blocks."""
    if path.suffix.lower() not in (".jsonl", ".json", ".csv", ".txt") or not path.is_file():
        return None
    content = path.read_bytes().removeprefix(_MARK)
    if content[:2] in _UTF16:
        return "it is UTF-16; save it as UTF-8"
    if not content.strip():
        return "it is empty"
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            return f"line {number} is not UTF-8 text; save it as UTF-8"
        if path.suffix.lower() == ".jsonl" and not _is_json(text):
            return f"line {number} is not JSON"
    return None


def _is_json(text: str) -> bool:
    try:
        json.loads(text or "{}")
    except ValueError:
        return False
    return True


def _take(data: Dataset, columns: Iterable[str], max_documents: int | None, source: str) -> list[Row]:
    if not len(data):
        raise ValueError(f"source: {source} is empty; choose another source or split")
    count = len(data) if max_documents is None else min(max_documents, len(data))
    names = list(columns)
    try:
        taken = data.select_columns(names).select(range(count))[:]  # to_list leaves JSON as text before datasets 5
        return [dict(zip(names, values, strict=True)) for values in zip(*(taken[name] for name in names), strict=True)]
    except UnicodeDecodeError as error:
        reason = _bad_line(Path(source)) or "it is not UTF-8 text"
        raise ValueError(f"source: cannot read {source} ({reason}); save it as UTF-8") from error
