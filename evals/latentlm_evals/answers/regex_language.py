"""Whether two regular expressions match the same strings, by their derivatives.

The derivative of an expression by a character is what must follow after it. The states of an automaton are its
derivatives; two expressions are equal when no pair of states that the same string leads to differs in whether the
string may end there. Positions such as a word boundary look at one character on either side, so a state is a
derivative and the kind of the character before it.

Source:    Brzozowski 1964 (derivatives, with intersection and complement); Moseley et al. 2023, "Derivative Based
           Nonbacktracking Real-World Regex Matching with Backtracking Semantics" (positions); Hopcroft and Karp 1971
           (equivalence by merging states). Libraries of automata in Python read no complement and no word boundary.
Checked:   tests/evals/answers/test_regex.py - all strings up to a length by Python's `re`, and by a naive matcher with
           intersection, complement and positions.
"""

from collections.abc import Iterator
from typing import Literal

from latentlm_evals.answers.regex_syntax import (
    LAST,
    WORD,
    Both,
    Chars,
    Either,
    Join,
    Node,
    Not,
    Position,
    Range,
    RegexError,
    Repeat,
    Syntax,
    parse,
)

MOST_STATES = 20_000
Beside = Literal["edge", "word", "other"]  # kind of the character next to a position; edge: there is none


def same_language(left: str, right: str, syntax: Syntax = "python") -> bool:
    r"""Whether both match the same strings, as a whole; RegexError where one cannot be read or it would take too long.

    >>> same_language("a(b|c)*", "a|a[bc]+"), same_language("a.*", ".*a")
    (True, False)
    >>> same_language(r"~((.*a.*)|(.*b.*))", r"(~(.*a.*))&(~(.*b.*))", "nl_rx")
    True
    """
    trees = [_read(text, syntax) for text in (left, right)]
    languages = _Languages(_classes(*trees))
    try:
        return languages.equal(*(languages.build(tree) for tree in trees))
    except RecursionError:
        raise RegexError("it is nested too deeply") from None


def matches_nothing(text: str, syntax: Syntax = "python") -> bool:
    r"""Whether there is no string that it matches.

    >>> matches_nothing("dog&cat", "nl_rx"), matches_nothing("a|")
    (True, False)
    """
    tree = _read(text, syntax)
    languages = _Languages(_classes(tree))
    return languages.equal(languages.build(tree), languages.none)


def _read(text: str, syntax: Syntax) -> Node:
    try:
        return parse(text, syntax)
    except RegexError as error:
        short = text if len(text) <= 60 else f"{text[:60]}..."
        raise RegexError(f"{short!r}: {error}") from None


def _chars(node: Node) -> Iterator[Chars]:
    match node:
        case Chars():
            yield node
        case Join(parts) | Either(parts) | Both(parts):
            for part in parts:
                yield from _chars(part)
        case Not(part) | Repeat(part):
            yield from _chars(part)
        case Position():
            pass


def _classes(*trees: Node) -> "_Classes":
    return _Classes([WORD, *dict.fromkeys(chars.ranges for tree in trees for chars in _chars(tree))])


class _Classes:
    """Characters that no class of the expressions tells apart are one letter; a class is a set of letters, as bits."""

    def __init__(self, classes: list[tuple[Range, ...]]):
        edges = sorted({0} | {edge for ranges in classes for first, last in ranges for edge in (first, last + 1)})
        letters: dict[tuple[bool, ...], int] = {}
        for edge in edges:
            if edge <= LAST:
                member = tuple(any(first <= edge <= last for first, last in ranges) for ranges in classes)
                letters.setdefault(member, len(letters))
        self.count = len(letters)
        self.bits = {
            ranges: sum(1 << letter for member, letter in letters.items() if member[number])
            for number, ranges in enumerate(classes)
        }

    def beside(self, letter: int) -> Beside:
        return "word" if self.bits[WORD] >> letter & 1 else "other"


class _Languages:
    """Expressions as numbers, equal ones as one number: ``nodes[i]`` is its kind and what it is made of."""

    def __init__(self, classes: _Classes):
        self.classes, self.full = classes, (1 << classes.count) - 1
        self.nodes: list[tuple] = []
        self.numbers: dict[tuple, int] = {}
        self.ends: dict[tuple[int, Beside, Beside], bool] = {}
        self.derived: dict[tuple[int, Beside, int], int] = {}
        self.none, self.empty = self.node("chars", 0), self.node("join")
        self.every = self.node("not", self.none)

    def node(self, kind: str, *made_of: int | str) -> int:
        key = (kind, *made_of)
        if key not in self.numbers:
            if len(self.nodes) > 10 * MOST_STATES:
                raise RegexError("it needs too many states")
            self.numbers[key] = len(self.nodes)
            self.nodes.append(key)
        return self.numbers[key]

    def build(self, tree: Node) -> int:
        match tree:
            case Chars(ranges):
                return self.node("chars", self.classes.bits[ranges])
            case Join(parts):
                return self.join(*map(self.build, parts))
            case Either(parts):
                return self.either(*map(self.build, parts))
            case Both(parts):
                return self.both(*map(self.build, parts))
            case Not(part):
                return self.negate(self.build(part))
            case Position(kind):
                return self.node("position", kind)
            case Repeat(part, least, most):
                one = self.build(part)
                if most is None:
                    return self.join(*[one] * least, self.star(one))
                more = self.empty
                for _ in range(most - least):
                    more = self.either(self.empty, self.join(one, more))
                return self.join(*[one] * least, more)

    def join(self, *parts: int) -> int:
        """One after the other, nested to the right."""
        whole = self.empty
        for part in reversed(parts):
            whole = self._pair(part, whole)
        return whole

    def _pair(self, first: int, rest: int) -> int:
        if self.none in (first, rest):
            return self.none
        if first == self.empty or (first == rest == self.every):
            return rest
        if rest == self.empty:
            return first
        kind, *parts = self.nodes[first]
        if kind == "join":
            return self._pair(parts[0], self._pair(parts[1], rest))
        return self.node("join", first, rest)

    def either(self, *parts: int) -> int:
        found, bits = self._flat("either", parts)
        if self.every in found:
            return self.every
        found |= {self.node("chars", bits)} if bits else set()
        return next(iter(found)) if len(found) == 1 else self.node("either", *sorted(found)) if found else self.none

    def both(self, *parts: int) -> int:
        return self.negate(self.either(*map(self.negate, parts)))

    def _flat(self, kind: str, parts: tuple[int, ...]) -> tuple[set[int], int]:
        """The different parts of parts, and all single characters together."""
        found, bits = set(), 0
        for part in parts:
            own, *inner = self.nodes[part]
            if own == kind:
                others, more = self._flat(kind, tuple(inner))
                found, bits = found | others, bits | more
            elif own == "chars":
                bits |= inner[0]
            else:
                found.add(part)
        return found, bits

    def negate(self, part: int) -> int:
        kind, *inner = self.nodes[part]
        return inner[0] if kind == "not" else self.node("not", part)

    def star(self, part: int) -> int:
        if part in (self.none, self.empty):
            return self.empty
        if part == self.every or self.nodes[part] == ("chars", self.full):
            return self.every
        return part if self.nodes[part][0] == "star" else self.node("star", part)

    def may_end(self, node: int, before: Beside, after: Beside) -> bool:
        """Whether it matches the empty string between two characters of these kinds."""
        key = (node, before, after)
        if key not in self.ends:
            self.ends[key] = self._may_end(*key)
        return self.ends[key]

    def _may_end(self, node: int, before: Beside, after: Beside) -> bool:
        kind, *parts = self.nodes[node]
        match kind:
            case "chars":
                return False
            case "star":
                return True
            case "not":
                return not self.may_end(parts[0], before, after)
            case "join":
                return all(self.may_end(part, before, after) for part in parts)
            case "either":
                return any(self.may_end(part, before, after) for part in parts)
        boundary = (before == "word") != (after == "word")
        return {"boundary": boundary, "inside": not boundary, "start": before == "edge", "end": after == "edge"}[
            parts[0]
        ]

    def derive(self, node: int, before: Beside, letter: int) -> int:
        """What must follow after a letter that stands after a character of that kind."""
        key = (node, before, letter)
        if key not in self.derived:
            self.derived[key] = self._derive(*key)
        return self.derived[key]

    def _derive(self, node: int, before: Beside, letter: int) -> int:
        kind, *parts = self.nodes[node]
        match kind:
            case "chars":
                return self.empty if parts[0] >> letter & 1 else self.none
            case "position":
                return self.none
            case "not":
                return self.negate(self.derive(parts[0], before, letter))
            case "either":
                return self.either(*(self.derive(part, before, letter) for part in parts))
            case "star":
                return self.join(self.derive(parts[0], before, letter), node)
        if not parts:
            return self.none
        first, rest = parts
        after_first = self.join(self.derive(first, before, letter), rest)
        if not self.may_end(first, before, self.classes.beside(letter)):
            return after_first
        return self.either(after_first, self.derive(rest, before, letter))

    def equal(self, left: int, right: int) -> bool:
        """Whether no string ends in one and not in the other."""
        parents: dict[tuple[int, Beside], tuple[int, Beside]] = {}

        def root(state: tuple[int, Beside]) -> tuple[int, Beside]:
            while (above := parents.get(state, state)) != state:
                parents[state] = parents.get(above, above)
                state = above
            return state

        due: list[tuple[int, int, Beside]] = [(left, right, "edge")]
        while due:
            a, b, before = due.pop()
            one, other = root((a, before)), root((b, before))
            if one == other:
                continue
            if self.may_end(a, before, "edge") != self.may_end(b, before, "edge"):
                return False
            parents[one] = other
            if len(parents) > MOST_STATES:
                raise RegexError("comparing it needs too many states")
            for letter in range(self.classes.count):
                after = [self.derive(node, before, letter) for node in (a, b)]
                due.append((after[0], after[1], self.classes.beside(letter)))
        return True
