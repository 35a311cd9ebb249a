"""A document as every data part gives it: a text or a conversation, and the spans that are marked in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Span = tuple[int, int]  # character offsets, [start, end)
MarkedUnit = tuple[int, int, str]  # [start, end), and the role of a turn
Message = Mapping[str, Any]  # of a conversation: `role` and `content`, as chat templates read it


@dataclass(frozen=True)
class SpanEdit:
    """How a span is read where it is not read in its own document.

    Attributes:
        skip: characters left out at its beginning, where it is an isolated source.
        suffix: text after it, where it is an isolated source; the source then ends with the suffix.
        decoy: text read after an isolated source in place of this span, where this span is the target.
    """

    skip: int = 0
    suffix: str = ""
    decoy: str = ""


@dataclass(frozen=True)
class Document:
    """One training text.

    Attributes:
        text: what is trained on; of a conversation the contents of its messages, joined by line breaks.
        spans: character offsets into `text`.
        messages: a conversation, which the tokenizer's chat template writes; spans are then moved to where it does.
        related: pairs of span numbers that are related to each other; None: all spans.
        target_span_ids: numbers of the spans that can be the target of a pair; None: all of them.
        units: units that the data marks, by grain: character offsets into `text` and the role of a turn, or "".
        edits: one for each span, or none at all.
        origin: where it comes from, such as ``row 3``, for messages.
    """

    text: str
    spans: Sequence[Span] = ()
    messages: Sequence[Message] | None = None
    related: Sequence[tuple[int, int]] | None = None
    target_span_ids: Sequence[int] | None = None
    units: Mapping[str, Sequence[MarkedUnit]] = field(default_factory=dict, repr=False)
    edits: Sequence[SpanEdit] = field(default=(), repr=False)
    origin: str = field(default="", repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "spans", tuple(self.spans))  # documents with the same spans are equal

    def to_row(self) -> dict[str, Any]:
        """Plain values for a line of JSON: ``text``, ``spans`` and what else was given; without the edits."""
        row: dict[str, Any] = {"text": self.text, "spans": [list(span) for span in self.spans]}
        if self.messages is not None:
            row["messages"] = [dict(message) for message in self.messages]
        if self.related is not None:
            row["related"] = [list(pair) for pair in self.related]
        if self.target_span_ids is not None:
            row["target_span_ids"] = list(self.target_span_ids)
        if self.units:
            row["units"] = {grain: [list(unit) for unit in units] for grain, units in self.units.items()}
        return row

    def span_text(self, number: int) -> str:
        """The text of one span."""
        start, end = self.spans[number]
        return self.text[start:end]

    def edit(self, number: int) -> SpanEdit:
        """The edit of one span; nothing is changed where there is none."""
        return self.edits[number] if self.edits else SpanEdit()

    def edited(self, change: Callable[[int, str, SpanEdit], SpanEdit]) -> "Document":
        """The same document with other edits: ``change(number, text, edit)`` gives that of each span."""
        numbers = range(len(self.spans))
        return replace(self, edits=[change(k, self.span_text(k), self.edit(k)) for k in numbers])


def conversation(messages: Sequence[Message], **rest: Any) -> Document:
    """A document of messages."""
    return Document("\n".join(message["content"] for message in messages), messages=messages, **rest)
