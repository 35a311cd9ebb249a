"""Rows of a test file -> what is asked and what the right answer is, as text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentlm.data import Corpus
from latentlm.data.text.encoding_report import DocumentError, some
from latentlm_evals.answers.options import Turns

Message = dict[str, Any]
PAIRS = (("prompt", "completion"), ("text_a", "text_b"))


@dataclass(frozen=True)
class Asked:
    """A prompt and its right answer.

    Attributes:
        row: its number in the file.
        turn: number of the message that is the answer, None without messages.
        prompt: the text, or the messages before the answer.
        gold: the right answer.
        tools: that the chat template is given.
    """

    row: int
    turn: int | None
    prompt: str | Sequence[Message]
    gold: str
    tools: Sequence[Any] | None = None


@dataclass(frozen=True)
class Asking:
    """All that can be asked of a file, and the rows that cannot be used, with the reason."""

    asked: Sequence[Asked]
    skipped: Sequence[str]
    num_rows: int


def read_asked(source: str | Corpus, turns: Turns, limit: int | None) -> Asking:
    """ValueError where there is no row that asks something."""
    corpus = corpus_of(source, limit)
    rows = corpus.rows()
    columns = list(rows[0])
    pair = next((pair for pair in PAIRS if set(pair) <= set(columns)), None)
    if "messages" not in columns and pair is None:
        raise ValueError(
            f"source: {corpus.path} has the columns {some(columns, count=20, length=40)}; answers need messages, or "
            "prompt and completion; for the loss of plain text give text=FILE"
        )
    asked, skipped = [], []
    for number, row in enumerate(rows):
        try:
            own = _of_messages(row, number, turns) if "messages" in columns else _of_pair(row, number, pair or PAIRS[0])
            asked += own
        except DocumentError as error:
            skipped.append(f"row {number}: {error}")
    return Asking(asked, skipped, len(rows))


def corpus_of(source: str | Corpus, limit: int | None) -> Corpus:
    """The first rows of it."""
    corpus = Corpus(source) if isinstance(source, str) else source
    most = [count for count in (limit, corpus.max_documents) if count is not None]
    return Corpus(corpus.path, corpus.subset, corpus.split, min(most) if most else None)


def _of_messages(row: Mapping[str, Any], number: int, turns: Turns) -> list[Asked]:
    messages = _messages(row["messages"], "messages")
    places = [place for place, message in enumerate(messages) if place and message["role"] == "assistant"]
    if not places:
        raise DocumentError("no assistant turn follows another message")
    places = places if turns == "all" else places[-1:]
    tools = _tools(row.get("tools"))
    found = [
        Asked(number, place, messages[:place], messages[place]["content"], tools)
        for place in places
        if messages[place]["content"].strip()
    ]
    if not found:
        raise DocumentError("its assistant turn has no text (a tool call alone is not scored)")
    return found


def _of_pair(row: Mapping[str, Any], number: int, pair: tuple[str, str]) -> list[Asked]:
    prompt, completion = (row[column] for column in pair)
    if isinstance(prompt, list) and isinstance(completion, list):
        before = _messages(prompt, "prompt")
        whole = {"messages": before + _messages(completion, "completion"), "tools": row.get("tools")}
        return _of_messages(whole, number, "last")
    for name, value in zip(pair, (prompt, completion), strict=True):
        if not isinstance(value, str) or not value.strip():
            raise DocumentError(f"{name} is {'blank' if isinstance(value, str) else 'not a string'}")
    # texts that belong together are trained on one below the other
    return [Asked(number, None, prompt if pair == PAIRS[0] else f"{prompt}\n", completion)]


def _messages(value: object, column: str) -> list[Message]:
    """Messages with the keys that they have: a table gives every message the keys of all."""
    if not isinstance(value, list) or not value:
        raise DocumentError(f"{column} must be a list of messages")
    messages = []
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise DocumentError(f"{column} must be a list of messages with a role and a content")
        kept = {key: part for key, part in message.items() if part is not None}
        if "content" not in kept and "tool_calls" not in kept:
            raise DocumentError(f"a message of {message['role']} has no content")
        messages.append({**kept, "content": _text(kept.get("content", ""))})
    return messages


def _text(content: object) -> str:
    """A content, which may be a list of text parts."""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        kinds = {part.get("type") for part in content} - {"text"}
        if kinds:
            raise DocumentError(f"a content has a part of type {kinds.pop()}; only text can be read")
        content = "".join(str(part.get("text")) for part in content)
    if not isinstance(content, str):
        raise DocumentError("a content must be text")
    return content


def _tools(value: object) -> Sequence[Any] | None:
    if value is None or isinstance(value, list):
        return value or None
    try:
        tools = json.loads(value) if isinstance(value, str) else None
    except ValueError:
        tools = None
    if not isinstance(tools, list):
        raise DocumentError("tools must be a list, or a list as JSON")
    return tools or None
