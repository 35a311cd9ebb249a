r"""Regular expressions as text -> a tree, in the syntax of Python's `re` or of the NL-RX data.

    union        a|b
    intersection a&b          NL-RX only, between union and concatenation
    complement   ~a           NL-RX only, binds more tightly than repetition
    repetition   a* a+ a? a{2} a{2,} a{2,3}, and the lazy forms, which match the same strings
    position     \b \B ^ $ \A \Z

Classes are those of ``re.ASCII``. What has no regular language, or none that is told here, is refused: look-around,
back-references, atomic groups, flags.
"""

import re
from dataclasses import dataclass
from typing import Literal

Syntax = Literal["python", "nl_rx"]
LAST = 0x10FFFF
Range = tuple[int, int]  # first and last code point

DIGITS: tuple[Range, ...] = ((48, 57),)
WORD: tuple[Range, ...] = ((48, 57), (65, 90), (95, 95), (97, 122))
SPACES: tuple[Range, ...] = ((9, 13), (32, 32))
SHORT = {"d": DIGITS, "w": WORD, "s": SPACES}
CONTROL = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
MOST_COPIES = 1000  # of a repeated part
LONGEST = 2000  # characters of an expression


class RegexError(ValueError):
    """A text that is not a regular expression, or one that cannot be decided here."""


@dataclass(frozen=True)
class Chars:
    """One character out of the ranges."""

    ranges: tuple[Range, ...]


@dataclass(frozen=True)
class Join:
    """The parts one after the other; without parts the empty string."""

    parts: tuple["Node", ...]


@dataclass(frozen=True)
class Either:
    """A string of one of the parts."""

    parts: tuple["Node", ...]


@dataclass(frozen=True)
class Both:
    """A string of all of the parts."""

    parts: tuple["Node", ...]


@dataclass(frozen=True)
class Not:
    """A string that is not one of the part."""

    part: "Node"


@dataclass(frozen=True)
class Repeat:
    """`least` to `most` strings of the part; None: any number."""

    part: "Node"
    least: int
    most: int | None


@dataclass(frozen=True)
class Position:
    """The empty string at a word boundary, elsewhere, at the start or at the end."""

    kind: Literal["boundary", "inside", "start", "end"]


Node = Chars | Join | Either | Both | Not | Repeat | Position
POSITIONS = {
    "b": Position("boundary"),
    "B": Position("inside"),
    "A": Position("start"),
    "Z": Position("end"),
}


def parse(text: str, syntax: Syntax) -> Node:
    """The tree of an expression; RegexError where it is not one."""
    if len(text) > LONGEST:
        raise RegexError(f"it has {len(text)} characters; {LONGEST} at most are read")
    reader = _Reader(text, syntax)
    try:
        node = reader.union()
    except RecursionError:
        raise RegexError("its brackets are nested too deeply") from None
    if reader.place < len(text):
        raise RegexError(f"nothing opens the {text[reader.place]!r} at {reader.place}")
    return node


def outside(ranges: tuple[Range, ...]) -> tuple[Range, ...]:
    """All characters that are not in the ranges."""
    gaps, start = [], 0
    for first, last in sorted(ranges):
        if start < first:
            gaps.append((start, first - 1))
        start = max(start, last + 1)
    return (*gaps, (start, LAST)) if start <= LAST else tuple(gaps)


class _Reader:
    """Recursive descent, one method a level of binding."""

    def __init__(self, text: str, syntax: Syntax):
        self.text, self.place, self.nl_rx = text, 0, syntax == "nl_rx"

    def next(self, token: str) -> bool:
        """Step over a token if it is next."""
        found = self.text.startswith(token, self.place)
        self.place += len(token) if found else 0
        return found

    def take(self) -> str:
        if self.place >= len(self.text):
            raise RegexError("it ends too early")
        self.place += 1
        return self.text[self.place - 1]

    def match(self, pattern: str) -> re.Match[str] | None:
        found = re.compile(pattern, re.ASCII).match(self.text, self.place)
        self.place = found.end() if found else self.place
        return found

    def union(self) -> Node:
        parts = [self.intersection()]
        while self.next("|"):
            parts.append(self.intersection())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def intersection(self) -> Node:
        parts = [self.sequence()]
        while self.nl_rx and self.next("&"):
            parts.append(self.sequence())
        return parts[0] if len(parts) == 1 else Both(tuple(parts))

    def sequence(self) -> Node:
        parts, ends = [], "|)&" if self.nl_rx else "|)"
        while self.place < len(self.text) and self.text[self.place] not in ends:
            parts.append(self.repeated())
        return parts[0] if len(parts) == 1 else Join(tuple(parts))

    def repeated(self) -> Node:
        node, times = self.atom(), 0
        while (bounds := self.bounds()) is not None:
            times += 1
            if not self.nl_rx and times > 1:
                raise RegexError(f"a repetition is repeated before {self.place}")
            node = Repeat(node, *bounds)
            if self.next("?"):  # lazy: the same strings
                continue
            if not self.nl_rx and self.next("+"):
                raise RegexError("a possessive repetition cannot be decided")
        return node

    def bounds(self) -> tuple[int, int | None] | None:
        for sign, pair in {"*": (0, None), "+": (1, None), "?": (0, 1)}.items():
            if self.next(sign):
                return pair
        if (found := self.match(r"\{(\d*)(,?)(\d*)\}")) is None:
            return None
        low, comma, high = found.groups()
        if not low and not comma:  # {} is text
            self.place = found.start()
            return None
        least, most = int(low or 0), int(high) if high else (None if comma else int(low))
        if max(least, most or 0) > MOST_COPIES or (most is not None and most < least):
            raise RegexError(f"repetition {found[0]} is out of range")
        return least, most

    def atom(self) -> Node:
        if self.nl_rx and self.next("~"):
            return Not(self.atom())
        char = self.take()
        if char == "(":
            return self.group()
        if char == "[":
            return Chars(self.char_class())
        if char == ".":
            return Chars(((0, LAST),) if self.nl_rx else outside(((10, 10),)))
        if char in "*+?":
            raise RegexError(f"there is nothing to repeat before the {char!r} at {self.place - 1}")
        if char in "^$":
            return Position("start" if char == "^" else "end")
        if char == "\\":
            return self.escape()
        return Chars(((ord(char), ord(char)),))

    def group(self) -> Node:
        if self.next("?") and not self.next(":") and self.match(r"P<\w+>") is None:
            raise RegexError(f"group (?{self.text[self.place : self.place + 2]} cannot be decided")
        node = self.union()
        if not self.next(")"):
            raise RegexError("a bracket ( is not closed")
        return node

    def escape(self) -> Node:
        char = self.text[self.place : self.place + 1]
        if char in POSITIONS:
            self.place += 1
            return POSITIONS[char]
        return Chars(self.escaped_chars())

    def escaped_chars(self) -> tuple[Range, ...]:
        """After a backslash: a shorthand or one character."""
        char = self.take()
        if char.lower() in SHORT:
            ranges = SHORT[char.lower()]
            return ranges if char.islower() else outside(ranges)
        if char in "xu" and (found := self.match({"x": r"[\da-fA-F]{2}", "u": r"[\da-fA-F]{4}"}[char])):
            code = int(found[0], 16)
            return ((code, code),)
        if char.isascii() and char.isalnum() and char not in CONTROL:
            raise RegexError(f"\\{char} cannot be decided")
        code = ord(CONTROL.get(char, char))
        return ((code, code),)

    def char_class(self) -> tuple[Range, ...]:
        negated = self.next("^")
        ranges = [*self.class_range(((93, 93),))] if self.next("]") else []  # a ] that comes first is a character
        while not self.next("]"):
            ranges += self.class_range(self.class_item())
        return outside(tuple(ranges)) if negated else tuple(ranges)

    def class_item(self) -> tuple[Range, ...]:
        char = self.take()
        if char != "\\":
            return ((ord(char), ord(char)),)
        return ((8, 8),) if self.next("b") else self.escaped_chars()

    def class_range(self, first: tuple[Range, ...]) -> tuple[Range, ...]:
        if self.text[self.place : self.place + 1] != "-" or self.text[self.place + 1 : self.place + 2] in ("", "]"):
            return first
        self.take()
        last = self.class_item()
        low, high = _single(first), _single(last)
        if low is None or high is None or high < low:
            raise RegexError("a range of characters is out of order")
        return ((low, high),)


def _single(ranges: tuple[Range, ...]) -> int | None:
    """The only character of the ranges."""
    codes = {code for first_and_last in ranges for code in first_and_last}
    return codes.pop() if len(codes) == 1 else None
