"""Conversations as the tokenizer's chat template writes them, and where in that text stands what is said."""

from collections.abc import Sequence
from typing import Any

from latentlm.data.documents import Message, Span
from latentlm.data.text.encoding_report import DocumentError

Tokenizer = Any  # transformers' PreTrainedTokenizerBase: too slow to import for checking a recipe


def render(messages: Sequence[Message], tokenizer: Tokenizer, **options: Any) -> str:
    """The conversation as text, special tokens included; `options` are those of `apply_chat_template`.

    Raises:
        DocumentError: the template refuses the conversation. It is a program from elsewhere, so whatever it raises is
            told in one line: a role that it does not know, or what its sandbox does not allow.
    """
    if tokenizer.chat_template is None:
        raise ValueError("tokenizer: it has no chat template for messages; set tokenizer.chat_template")
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **options))
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DocumentError(
            f"the chat template refuses it ({reason}); change the messages or set another tokenizer.chat_template"
        ) from error


def rendered_spans(
    spans: Sequence[Span], messages: Sequence[Message], rendered: str, tokenizer: Tokenizer
) -> dict[int, Span]:
    """Spans of what is said (the messages, one below the other), moved to the rendered conversation, by their number.

    One that reaches from a message into the next is left out: between the two stands what the template writes.

    Raises:
        ValueError: the template leaves out, repeats or rewrites a message, or a span lies outside of what is said.
    """
    starts = [start for start, _ in content_spans(messages, rendered, tokenizer, whole=True)]
    moved, length = {}, sum(len(message["content"]) + 1 for message in messages) - 1
    for number, (start, end) in enumerate(spans):
        if not 0 <= start < end <= length:
            raise ValueError(f"span [{start}, {end}] is not inside the messages; give 0 <= start < end <= {length}")
        before = 0
        for message, there in zip(messages, starts, strict=True):
            if before <= start and end <= before + len(message["content"]):
                moved[number] = start - before + there, end - before + there
            before += len(message["content"]) + 1
    return moved


def content_spans(messages: Sequence[Message], rendered: str, tokenizer: Tokenizer, whole: bool = False) -> list[Span]:
    """Where each message is in the rendered text. Not searched for by its words: the template may hold them too.

    Args:
        messages: of the conversation.
        rendered: what the template made of them.
        tokenizer: with the template.
        whole: of a content that the template strips, where the whole of it would be.
    """
    marks = [f"\ue000{number}\ue001" for number in range(len(messages))]  # of the private use area: in no message
    frame = render([{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)], tokenizer)
    contents = [message["content"] for message in messages]
    for written in (contents, [content.strip() for content in contents]):  # many templates strip
        text, rest, spans = "", frame, []
        for content, said, mark in zip(contents, written, marks, strict=True):
            ahead, _, rest = rest.partition(mark)
            start = len(text + ahead)
            spans.append(
                (start - content.find(said), start - content.find(said) + len(content))
                if whole
                else (start, start + len(said))
            )
            text += ahead + said
        if text + rest == rendered:
            return spans
    raise ValueError(
        "tokenizer: its chat template does not write every message once and as it is, so spans are not found in it; "
        "set another tokenizer.chat_template"
    )
