"""Rows of a test file -> what is asked and what the right answer is, as text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentlm.data import Corpus
from latentlm.data.text.encoding_report import DocumentError, some
from latentlm_evals.answers.options import Turns

Message = dict[str, Any]


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
    if "messages" not in columns and not {"prompt", "completion"} <= set(columns):
        raise ValueError(
            f"source: {corpus.path} has the columns {some(columns, count=20, length=40)}; answers need messages, or "
            "prompt and completion; for the loss of plain text give text=FILE"
        )
    asked, skipped = [], []
    for number, row in enumerate(rows):
        try:
            asked += _of_messages(row, number, turns) if "messages" in columns else _of_pair(row, number)
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
        if isinstance(messages[place].get("content"), str) and messages[place]["content"].strip()
    ]
    if not found:
        raise DocumentError("its assistant turn has no text (a tool call alone is not scored)")
    return found


def _of_pair(row: Mapping[str, Any], number: int) -> list[Asked]:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        before = _messages(prompt, "prompt")
        whole = {"messages": before + _messages(completion, "completion"), "tools": row.get("tools")}
        return _of_messages(whole, number, "last")
    for name, value in (("prompt", prompt), ("completion", completion)):
        if not isinstance(value, str) or not value.strip():
            raise DocumentError(f"{name} is {'blank' if isinstance(value, str) else 'not a string'}")
    return [Asked(number, None, prompt, completion)]


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
        messages.append({"content": "", **kept})
    return messages


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
