"""Equal languages: by Python's own matcher on all short strings, by a naive matcher, by known pairs."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latentlm_evals.answers import regex_language
from latentlm_evals.answers.regex_language import matches_nothing, same_language
from latentlm_evals.answers.regex_syntax import (
    Both,
    Chars,
    Either,
    Join,
    Node,
    Not,
    Position,
    RegexError,
    Repeat,
    parse,
)

SHORT = ["".join(chars) for length in range(6) for chars in itertools.product("ab ", repeat=length)]


def matched(node: Node, text: str) -> set[tuple[int, int]]:
    """All (start, end) that it matches inside the text, straight from the definition of each operator."""
    ends = range(len(text) + 1)
    everything = {(i, j) for i in ends for j in ends if i <= j}
    match node:
        case Chars(ranges):
            return {(i, i + 1) for i, c in enumerate(text) if any(low <= ord(c) <= high for low, high in ranges)}
        case Join(parts):
            found = {(i, i) for i in ends}
            for part in parts:
                found = joined(found, matched(part, text))
            return found
        case Either(parts):
            return set().union(*(matched(part, text) for part in parts))
        case Both(parts):
            return everything.intersection(*(matched(part, text) for part in parts))
        case Not(part):
            return everything - matched(part, text)
        case Repeat(part, least, most):
            one, found, now = matched(part, text), set(), {(i, i) for i in ends}
            for times in range((len(text) + least if most is None else most) + 1):
                found |= now if times >= least else set()
                now = joined(now, one)
            return found
        case Position(kind):
            word = [c.isalnum() for c in text]
            edge = {i for i in ends if (i > 0 and word[i - 1]) != (i < len(text) and word[i])}
            places = {"boundary": edge, "inside": set(ends) - edge, "start": {0}, "end": {len(text)}}[kind]
            return {(i, i) for i in places}


def joined(left, right):
    return {(i, k) for i, j in left for start, k in right if j == start}


ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\w", " "])
ANCHORS = st.sampled_from([r"\b", r"\B", "^", "$"])


def expressions(atoms, operators):
    def grow(part):
        pairs = st.tuples(part, part)
        forms = [
            pairs.map(lambda p: f"{p[0]}{p[1]}"),
            pairs.map(lambda p: f"({p[0]}|{p[1]})"),
            part.map(lambda p: f"({p})*"),
            part.map(lambda p: f"({p}){{1,2}}"),
            part.map(lambda p: f"({p})?"),
        ]
        if "&" in operators:
            forms += [pairs.map(lambda p: f"(({p[0]})&({p[1]}))"), part.map(lambda p: f"~({p})")]
        return st.one_of(forms)

    return st.recursive(atoms, grow, max_leaves=5)


@settings(max_examples=60, deadline=None)
@given(expressions(ATOMS, "|"), expressions(ATOMS, "|"))
def test_python_syntax_agrees_with_python(left, right):
    words = [{word for word in SHORT if re.compile(text, re.ASCII).fullmatch(word)} for text in (left, right)]
    if same_language(left, right):
        assert words[0] == words[1]
    else:  # automata of these sizes differ in a word of at most 5 characters, or in one with other characters
        other = [{w for w in ("z", "az", "za", "zz", "\n", "a\n", "\na") if re.fullmatch(t, w)} for t in (left, right)]
        longer = ["".join(w) for n in (6, 7, 8) for w in itertools.product("ab", repeat=n)]
        assert (
            words[0] != words[1]
            or other[0] != other[1]
            or any(bool(re.fullmatch(left, word)) != bool(re.fullmatch(right, word)) for word in longer)
        )


@settings(max_examples=40, deadline=None)
@given(expressions(st.one_of(ATOMS, ANCHORS), "|&"), expressions(st.one_of(ATOMS, ANCHORS), "|&"))
def test_complement_intersection_and_positions_agree_with_a_naive_matcher(left, right):
    texts = [word for word in SHORT if len(word) < 5]
    words = [{w for w in texts if (0, len(w)) in matched(parse(text, "nl_rx"), w)} for text in (left, right)]
    if same_language(left, right, "nl_rx"):
        assert words[0] == words[1]
    if words[0] != words[1]:
        assert not same_language(left, right, "nl_rx")
    assert same_language(left, f"~(~({left}))", "nl_rx")
    assert same_language(f"~(({left})&({right}))", f"(~({left}))|(~({right}))", "nl_rx")
    assert matches_nothing(f"({left})&(~({left}))", "nl_rx")


@pytest.mark.parametrize(
    ("left", "right", "syntax", "same"),
    [
        ("(ab)*a", "a(ba)*", "python", True),
        ("(a|b)*", "(a*b*)*", "python", True),
        ("a{2,}", "aaa*", "python", True),
        ("a+?b", "a+b", "python", True),
        ("[0-9]", r"\d", "python", True),
        (r"(?:x)(?P<y>z)", "xz", "python", True),
        (".", "[^\n]", "python", True),
        ("a&b", "b&a", "python", False),  # letters there
        ("a&b", "b&a", "nl_rx", True),
        (".*dog.*", ".*(dog.*)+", "nl_rx", True),
        ("~(.*dog.*)", "~(.*dog.*truck.*)", "nl_rx", False),
        (r"\b([0-9])*\b", "([0-9])+|x(~(.*))", "nl_rx", True),  # a boundary needs a word character beside it
        (r"(\bdog\b){2,}", "~(.*)", "nl_rx", True),  # no boundary between two words without a blank
        (r".*\bdog\b.*", r"(.*\W|)dog(|\W.*)", "nl_rx", True),
        (r"~((dog.*[0-9].*){3,})", r"~((dog.*\d.*)(dog.*\d.*)(dog.*[0-9].*)+)", "nl_rx", True),
        ("", "()", "python", True),
        ("[]a]", r"\]|a", "python", True),
    ],
)
def test_known_pairs(left, right, syntax, same):
    assert same_language(left, right, syntax) is same


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("(a", r"'\(a': a bracket \( is not closed"),
        ("a)", r"nothing opens the '\)' at 1"),
        ("*a", r"nothing to repeat before the '\*' at 0"),
        ("[a", "ends too early"),
        ("a\\", "ends too early"),
        (r"(a)\1", r"\\1 cannot be decided"),
        ("(?=a)", r"group \(\?=a cannot be decided"),
        ("[b-a]", "range of characters is out of order"),
        ("a{3,2}", r"repetition \{3,2\} is out of range"),
        ("(" * 1900, "nested too deeply"),
    ],
)
def test_what_cannot_be_decided_is_one_line(text, told):
    with pytest.raises(RegexError, match=told):
        same_language(text, "a")


def test_too_many_states_are_one_line(monkeypatch):
    monkeypatch.setattr(regex_language, "MOST_STATES", 200)
    with pytest.raises(RegexError, match="too many states"):  # the a is 17 from the end: 2^17 states
        same_language(".*a.{16}", "(.{17,})&(.*a.{16})", "nl_rx")
