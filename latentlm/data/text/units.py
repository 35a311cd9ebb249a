"""Units of a text: which tokens make up a sentence, a paragraph or a turn. Found in the text itself, without labels.

A grain is a kind of unit. Terms name grains; `finders` says how the units of each are found.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from latentlm.data.documents import Span

Tokenizer = Any  # transformers' PreTrainedTokenizerBase: too slow to import for checking a recipe


@dataclass(frozen=True)
class UnitSpan:
    """One unit of a document: its tokens ``[first, stop)``, and a turn's role as its place in `ROLES`, or -1."""

    first: int
    stop: int
    role: int = -1


@dataclass(frozen=True)
class TokenText:
    """A document as its tokens write it.

    Attributes:
        text: what the ids decode to, without special tokens.
        offsets: characters ``[start, end)`` of `text` that each token adds; none for a special token.
        known: units that the data or its chat template marks, by grain.
    """

    text: str
    offsets: Sequence[Span]
    known: Mapping[str, Sequence[UnitSpan]] = field(default_factory=dict)

    def units(self, parts: Iterable[Span]) -> list[UnitSpan]:
        """Units of these pieces of the text, in their order, without the blanks at their ends.

        A token belongs to the piece that its last character is in: in most vocabularies a word brings the blank before
        it along.
        """
        ends = [(k, end - 1) for k, (start, end) in enumerate(self.offsets) if start < end]
        units, place = [], 0
        for start, end in parts:
            end -= len(self.text[start:end]) - len(self.text[start:end].rstrip())
            while place < len(ends) and ends[place][1] < start:
                place += 1
            first = place
            while place < len(ends) and ends[place][1] < end:
                place += 1
            if place > first:
                units.append(UnitSpan(ends[first][0], ends[place - 1][0] + 1))
        return units

    def part(self, first: int, stop: int) -> "TokenText":
        """The text of these tokens, as a text of its own."""
        start = self.offsets[first][0]
        offsets = [(low - start, high - start) for low, high in self.offsets[first:stop]]
        return TokenText(self.text[start : start + offsets[-1][1]], offsets)


Finder = Callable[[TokenText], list[UnitSpan]]
_EMPTY_LINE = re.compile(r"\n[ \t]*\n")
# "1. ", "2) ", "(3) ", "Step 4: ", behind the signs of a heading, bullet or emphasis; "Step 5" alone in its line
_STEP = r"(?im)^[ \t*#_>-]*(?:\(?\d{1,3}[*_]*[.):]+|step[ \t]*\d{1,3}[*_]*(?:[.):]+|(?=[ \t]*$)))[*_]*(?=\s|$)"


@dataclass(frozen=True)
class Chunk:
    """Runs of `size` tokens, one after the other; what is left at the end is no unit.

    Args:
        size: tokens in a unit.
        grain: its name for the terms; another name makes another grain.
    """

    size: int = 8
    grain: str = "chunk"

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"chunk: size {self.size}; set it to 1 or more")

    def __call__(self, tokens: TokenText) -> list[UnitSpan]:
        """The units of a document."""
        there = [k for k, (start, end) in enumerate(tokens.offsets) if start < end]
        runs = [there[k : k + self.size] for k in range(0, len(there), self.size)]
        return [UnitSpan(run[0], run[-1] + 1) for run in runs if len(run) == self.size]


@dataclass(frozen=True)
class Sentence:
    """Sentences, by the rules of the language; a sentence never crosses an empty line.

    Source:    sentencex (Wikimedia): rules for some 240 languages, nothing to download, and no character is lost.

    Args:
        language: ISO code; an unknown one gets the rules of English.
        grain: its name for the terms.
    """

    language: str = "en"
    grain: str = "sentence"

    def __call__(self, tokens: TokenText) -> list[UnitSpan]:
        """The units of a document."""
        from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs

        parts, start = [], 0
        for part in segment(self.language, tokens.text):
            parts.append((start, start + len(part)))
            start += len(part)
        return tokens.units(_saying(tokens.text, parts))


@dataclass(frozen=True)
class Pattern:
    r"""What a regular expression of Python's `re` marks: headings, bullets, rulers, steps of another kind.

    Args:
        grain: its name for the terms; that of a usual grain replaces it.
        between: matches stand between units and belong to none, as ``\n---\n``.
        begins: a unit begins where it matches and ends before the next; the last one ends at an empty line.
    """

    grain: str
    between: str | None = None
    begins: str | None = None

    def __post_init__(self):
        if (self.between is None) == (self.begins is None):
            raise ValueError(f"pattern: give the grain {self.grain} one of between and begins")
        key, pattern = ("between", self.between) if self.begins is None else ("begins", self.begins)
        try:
            matches_nothing = re.compile(pattern or "").match("")
        except re.error as error:
            raise ValueError(f"pattern: {key} {pattern!r} is no regular expression ({error})") from error
        if matches_nothing:
            raise ValueError(f"pattern: {key} {pattern!r} matches the empty text; let it match a character")

    def __call__(self, tokens: TokenText) -> list[UnitSpan]:
        """The units of a document."""
        marks = [match.span() for match in re.finditer(self.between or self.begins or "", tokens.text)]
        if self.begins is None:
            starts, ends = [0, *(end for _, end in marks)], [*(start for start, _ in marks), len(tokens.text)]
        elif marks:
            rest = _EMPTY_LINE.search(tokens.text, marks[-1][1])
            starts = [start for start, _ in marks]
            ends = [*starts[1:], rest.start() if rest else len(tokens.text)]
        else:
            return []
        return tokens.units(_saying(tokens.text, zip(starts, ends, strict=True)))


UnitRule = Chunk | Sentence | Pattern


@dataclass(frozen=True)
class _Known:
    """What the data mark."""

    grain: str

    def __call__(self, tokens: TokenText) -> list[UnitSpan]:
        return list(tokens.known.get(self.grain, ()))


def _saying(text: str, parts: Iterable[Span]) -> list[Span]:
    """Those with a letter or a digit: a row of dashes is no sentence."""
    return [(start, end) for start, end in parts if any(map(str.isalnum, text[start:end]))]


def _whole(tokens: TokenText) -> list[UnitSpan]:
    return tokens.units([(0, len(tokens.text))])


# the grains that every text may have, and what they are
STANDARD: dict[str, Finder] = {
    "chunk": Chunk(),
    "sentence": Sentence(),
    "line": Pattern("line", between=r"\n"),
    "step": Pattern("step", begins=_STEP),
    "paragraph": Pattern("paragraph", between=_EMPTY_LINE.pattern),
    "turn": _Known("turn"),
    "column": _Known("column"),
    "span": _Known("span"),
    "document": _whole,
}
NEEDS = {
    "turn": "conversations (a column messages), or columns prompt and completion",
    "column": "columns text_a and text_b, or a list texts",
    "span": "a column spans, or data.span_pairs.kind=phrases",
    "step": "numbers at the start of lines: 1. or 2) or Step 3:",
}


def finders(grains: Iterable[str], rules: Sequence[UnitRule] = ()) -> dict[str, Finder]:
    """How the units of each grain are found: by a rule of that name, or as every text has them.

    A grain that is neither is one that the data itself must mark.
    """
    own = {rule.grain: rule for rule in rules}
    return {grain: own.get(grain) or STANDARD.get(grain) or _Known(grain) for grain in grains}


def find_units(tokens: TokenText, how: Mapping[str, Finder]) -> dict[str, list[UnitSpan]]:
    """The units of every grain. In a conversation those that are smaller than a turn are looked for in each turn."""
    turns = tokens.known.get("turn", ())
    found: dict[str, list[UnitSpan]] = {}
    for grain, find in how.items():
        if not turns or isinstance(find, _Known) or find is _whole:
            found[grain] = find(tokens)
            continue
        found[grain] = [
            UnitSpan(unit.first + turn.first, unit.stop + turn.first, turn.role)
            for turn in turns
            for unit in find(tokens.part(turn.first, turn.stop))
        ]
    return found


def token_text(
    ids: Sequence[int],
    tokenizer: Tokenizer,
    known: Mapping[str, Sequence[UnitSpan]] | None = None,
    special_tokens: bool = False,
) -> TokenText:
    """What ids say, and which characters each of them adds.

    The text is decoded, not the original one: then units are the same wherever the ids come from. A character of
    several tokens is added by all of them.

    Args:
        ids: of one document.
        tokenizer: with a fast decoder.
        known: units that are marked already.
        special_tokens: whether special tokens are text as well.
    """
    if not tokenizer.is_fast:
        raise ValueError("tokenizer: units need its decoder; load it with use_fast=True")
    from tokenizers.decoders import DecodeStream

    stream, text, length = DecodeStream(skip_special_tokens=not special_tokens), [], 0
    offsets: list[Span] = []
    begun = 0  # of a character that is not complete
    for token in ids:
        added = stream.step(tokenizer.backend_tokenizer, token)
        if added is None and not _is_special(token, tokenizer):
            begun += 1
            offsets.append((length, length))
            continue
        span = length, length + len(added or "")
        offsets[len(offsets) - begun :] = [span] * (begun + 1)
        text.append(added or "")
        length, begun = span[1], 0
    return TokenText("".join(text), offsets, known or {})


def _is_special(token: int, tokenizer: Tokenizer) -> bool:
    added = tokenizer.added_tokens_decoder.get(token)
    return added is not None and added.special


def inside(units: Iterable[UnitSpan], start: int, stop: int) -> list[UnitSpan]:
    """The units that are whole in the tokens ``[start, stop)``, counted from `start`."""
    return [
        UnitSpan(unit.first - start, unit.stop - start, unit.role)
        for unit in units
        if start <= unit.first and unit.stop <= stop
    ]
