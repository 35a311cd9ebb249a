"""The turns of a conversation in its tokens, found by what the chat template writes around them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from latentlm.components.units import ROLES
from latentlm.data.documents import Message, Span
from latentlm.data.text.chat_spans import content_spans, render
from latentlm.data.text.units import TokenText, UnitSpan, token_text

Tokenizer = Any  # transformers' PreTrainedTokenizerBase: too slow to import for checking a recipe
Turns = list[tuple[Span, str]]  # where each content is, and whose it is

# what conversations are made of: every role that may begin, and every one that may follow another
_PROBES = (
    ("system", "user", "assistant", "user", "assistant"),
    ("user", "assistant", "user", "assistant"),
    ("user", "assistant", "tool", "assistant", "user"),
    ("user", "assistant", "tool", "tool", "assistant"),
    ("system", "user", "assistant", "tool", "assistant"),
    ("system",),
    ("assistant",),
    ("tool",),
)


@dataclass(frozen=True)
class ChatFrame:
    """What a chat template writes around contents.

    Attributes:
        before: what stands before a content of each role that comes first.
        between: what stands between two contents, by their roles.
        after: what stands behind a content of each role that comes last.
    """

    before: Mapping[str, str]
    between: Mapping[tuple[str, str], str]
    after: Mapping[str, str]

    def turns(self, text: str) -> Turns | None:
        """The turns of a text that the template has written; None where it has not."""
        start = _longest(text, self.before, 0)
        if start is None:
            return None
        role, place, turns = *start, Turns()
        while True:
            links = {after: link for (before, after), link in self.between.items() if before == role and link}
            pattern = "|".join(sorted(map(re.escape, set(links.values())), key=len, reverse=True))
            match = re.compile(pattern).search(text, place) if pattern else None
            if match is None:
                turns.append(((place, self._end(text, place, role)), role))
                return turns
            turns.append(((place, match.start()), role))
            role, place = next(after for after, link in links.items() if link == match.group()), match.end()

    def closing(self, role: str, gap: str) -> str:
        """The part of a gap behind a content of this role that belongs to its turn."""
        end = self.after.get(role, "")
        return gap[
            : next((k for k, (a, b) in enumerate(zip(gap, end, strict=False)) if a != b), min(len(gap), len(end)))
        ]

    def _end(self, text: str, place: int, role: str) -> int:
        for end in (self.after.get(role, ""), self.after.get(role, "").rstrip()):
            at = text.rfind(end) if end else -1
            if at >= place and not text[at + len(end) :].strip():
                return at
        return len(text)


def chat_frame(tokenizer: Tokenizer) -> ChatFrame | None:
    """The frame of a tokenizer's chat template; None where it has none."""
    template = getattr(tokenizer, "chat_template", None)
    return None if template is None else _frame(tokenizer, repr(template))


@lru_cache(maxsize=8)
def _frame(tokenizer: Tokenizer, template: str) -> ChatFrame | None:
    before: dict[str, str] = {}
    between: dict[tuple[str, str], str] = {}
    after: dict[str, str] = {}
    for roles in _PROBES:
        marks = [f"\ue000{number}\ue001" for number in range(len(roles))]  # of the private use area: in no template
        try:
            text = render([{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)], tokenizer)
        except ValueError:  # a template may refuse an order of roles
            continue
        pieces = re.split("|".join(marks), text)
        if len(pieces) != len(roles) + 1:
            continue
        before.setdefault(roles[0], pieces[0])
        for pair, piece in zip(pairwise(roles), pieces[1:-1], strict=True):
            between.setdefault(pair, piece)
        after.setdefault(roles[-1], pieces[-1])
    return ChatFrame(before, between, after) if before else None


def headers(tokenizer: Tokenizer) -> dict[int, list[int]]:
    """The tokens before a content that is alone in its conversation, by the role's place in `ROLES`."""
    frame = chat_frame(tokenizer)
    texts = {} if frame is None else frame.before
    return {
        ROLES.index(role): list(tokenizer(text, add_special_tokens=False)["input_ids"])
        for role, text in texts.items()
        if role in ROLES
    }


def written_turns(messages: Sequence[Message], text: str, tokenizer: Tokenizer) -> Turns:
    """The turns of a conversation in the text that the template has made of it.

    Where the template has changed contents (it strips, or leaves out what was thought), what it wrote counts.

    Raises:
        ValueError: the turns are not found.
    """
    frame = chat_frame(tokenizer)
    turns = None if frame is None else frame.turns(text)
    roles = [message["role"] for message in messages]
    # a template may put a system prompt of its own in front
    turns = None if turns is None or [role for _, role in turns][-len(roles) :] != roles else turns[-len(roles) :]
    more = any(set(message) - {"role", "content"} for message in messages)  # tool calls are written beside the content
    if more and turns is not None:
        return turns
    try:
        spans = content_spans(messages, text, tokenizer)
    except ValueError as error:
        if turns is None:
            raise ValueError(
                "tokenizer: the turns are not found in what its chat template writes; set another "
                "tokenizer.chat_template, or loss_on: all"
            ) from error
        return turns
    return list(zip(spans, roles, strict=True))


def special_tokens(ids: Sequence[int], tokenizer: Tokenizer) -> list[bool]:
    """Which of the ids are special tokens."""
    special = _special_ids(tokenizer, len(tokenizer), tuple(tokenizer.all_special_ids))
    return [token in special for token in ids]


@lru_cache(maxsize=8)
def _special_ids(tokenizer: Tokenizer, size: int, named: tuple[int, ...]) -> frozenset[int]:
    # asked for every document, and a tokenizer lists all of its added tokens anew each time
    return frozenset(named) | {token for token, text in tokenizer.added_tokens_decoder.items() if text.special}


def template_mask(messages: Sequence[Message], ids: Sequence[int], tokenizer: Tokenizer) -> list[bool] | None:
    """The assistant's tokens as the template itself marks them (``{% generation %}``); None where it does not."""
    template = tokenizer.chat_template
    if "{% generation" not in str(template).replace("{%-", "{%"):
        return None
    found = tokenizer.apply_chat_template(
        list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    there = list(found["input_ids"])
    if there != list(ids)[: len(there)] or not any(found["assistant_masks"]):
        return None
    return [bool(mark) for mark in found["assistant_masks"]] + [False] * (len(ids) - len(there))


def turns_of(ids: Sequence[int], tokenizer: Tokenizer) -> list[UnitSpan]:
    """The turns of a document that a chat template has written; none where there is no template, or it has not."""
    frame = chat_frame(tokenizer)
    if frame is None:
        return []
    tokens = token_text(ids, tokenizer, special_tokens=True)
    return turn_units(tokens, frame.turns(tokens.text) or [])


def turn_units(tokens: TokenText, turns: Turns) -> list[UnitSpan]:
    """The tokens of turns, without those that have none."""
    found = []
    for span, role in turns:
        for unit in tokens.units([span]):
            found.append(UnitSpan(unit.first, unit.stop, ROLES.index(role) if role in ROLES else -1))
    return found


def answers(tokens: TokenText, turns: Turns, frame: ChatFrame | None, special: Sequence[bool]) -> Iterator[range]:
    """Tokens of each turn of the assistant, with the special token that ends it.

    Args:
        tokens: the conversation, special tokens included.
        turns: where its contents are.
        frame: of the template.
        special: which tokens are special.
    """
    starts = [start for (start, _), _ in turns]
    for number, ((start, end), role) in enumerate(turns):
        if role != "assistant":
            continue
        following = starts[number + 1] if number + 1 < len(starts) else len(tokens.text)
        closing = end if frame is None else end + len(frame.closing(role, tokens.text[end:following]))
        said = [k for k, (low, high) in enumerate(tokens.offsets) if low < high and start < high and low < end]
        closes = [k for k, (low, high) in enumerate(tokens.offsets) if end <= low < high <= closing and special[k]]
        stop = closes[0] + 1 if closes else (said[-1] + 1 if said else 0)
        first = said[0] if said else (closes[0] if closes else stop)
        yield range(first, stop)


def _longest(text: str, starts: Mapping[str, str], place: int) -> tuple[str, int] | None:
    fitting = [(len(start), role) for role, start in starts.items() if start and text.startswith(start, place)]
    if not fitting:
        return None
    length, role = max(fitting)
    return role, place + length
