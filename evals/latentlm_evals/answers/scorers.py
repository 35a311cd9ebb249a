"""How right an answer is: exact match, SQuAD's normalised match, equal regular expressions, or one's own function."""

import importlib
import inspect
import math
import os
import re
import string
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from latentlm.data.text.encoding_report import some
from latentlm_evals.answers.regex_language import matches_nothing, same_language
from latentlm_evals.answers.regex_syntax import RegexError, Syntax

Function = Callable[[str, str], float]
REGEX: dict[str, Syntax] = {"regex": "python", "regex_nl_rx": "nl_rx"}
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact(answer: str, gold: str) -> float:
    r"""1 where both are the same, but for white space around them.

    >>> exact(" Paris\n", "Paris"), exact("paris", "Paris")
    (1.0, 0.0)
    """
    return float(answer.strip() == gold.strip())


def normalized(answer: str, gold: str) -> float:
    """1 where both are the same in SQuAD's normal form: lower case, no punctuation, no articles, single blanks.

    A right answer of which nothing is left, such as ``.*``, is compared as it is.

    Source:    Rajpurkar et al. 2016, arXiv 1606.05250: normalize_answer of the official evaluation, English articles.

    >>> normalized("The  Eiffel-Tower!", "eiffeltower"), normalized(".", "*")
    (1.0, 0.0)
    """
    form = normal_form(gold)
    return float(normal_form(answer) == form) if form else exact(answer, gold)


def normal_form(text: str) -> str:
    """In the order of the official evaluation: case, punctuation, articles, blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


@dataclass
class SameRegex:
    """1 where both denote the same set of strings; where that cannot be told, where they are the same text.

    Attributes:
        syntax: in which they are written.
        undecided: what could not be read or compared, and why.
        cache: pairs that are scored.
    """

    syntax: Syntax
    undecided: dict[str, None] = field(default_factory=dict)
    cache: dict[tuple[str, str], float] = field(default_factory=dict)

    def __call__(self, answer: str, gold: str) -> float:
        """Of one pair."""
        answer, gold = answer.strip(), gold.strip()
        if answer == gold:
            return 1.0
        if (answer, gold) not in self.cache:
            self.cache[answer, gold] = self._compared(answer, gold)
        return self.cache[answer, gold]

    def _compared(self, answer: str, gold: str) -> float:
        try:
            matches_nothing(answer, self.syntax)
        except RegexError:
            return 0.0  # no regular expression is no right answer
        try:
            return float(same_language(answer, gold, self.syntax))
        except RegexError as error:
            self.undecided[str(error)] = None
            return 0.0

    def notes(self, golds: Sequence[str]) -> list[str]:
        """What to know of the right answers."""
        lines, empty = [], 0
        if self.undecided:
            told = some(list(self.undecided))
            lines.append(f"regex_undecided: {len(self.undecided)} pairs count as equal only as text: {told}")
        for gold in golds:
            try:
                empty += matches_nothing(gold.strip(), self.syntax)
            except RegexError:
                continue
        if empty:
            lines.append(
                f"regex_empty: {empty} of {len(golds)} right answers match no string at all; every answer that matches "
                "none is equal to them"
            )
        operators = sum(bool(re.search(r"(?<!\\)(&|~\()", gold)) for gold in golds)
        if self.syntax == "python" and operators:
            lines.append(
                f"regex_operators: {operators} of {len(golds)} right answers have & or ~(, which are plain letters to "
                "scorer=regex; where they mean and and not, use scorer=regex_nl_rx"
            )
        return lines


@dataclass(frozen=True)
class Scorer:
    """A score besides exact and normalised match.

    Attributes:
        name: of the score.
        function: of answer and right answer.
        notes: what to know of the scores of these right answers.
    """

    name: str
    function: Function
    notes: Callable[[Sequence[str]], list[str]] = lambda golds: []

    def __call__(self, answer: str, gold: str, origin: str) -> float:
        """Of one pair; ValueError that names the row where it is not a number."""
        value = self.function(answer, gold)
        if isinstance(value, bool | int | float) and math.isfinite(value):
            return float(value)
        raise ValueError(f"scorer: {self.name} gave {str(value)[:40]!r} for {origin}; return a finite number")


def load_scorer(name: str) -> Scorer:
    """A built-in one, or ``module:function`` of one's own."""
    if name in REGEX:
        same = SameRegex(REGEX[name])
        return Scorer(name, same, same.notes)
    return Scorer(name.replace(",", "_"), load_function(name))


def load_function(name: str) -> Function:
    """``module:function`` of one's own; one line where there is none that takes answer and right answer."""
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(f"scorer: {name} is neither built in (regex, regex_nl_rx) nor module:function")
    sys.path.insert(0, os.getcwd())  # as `python -m` has it: a script's own folder comes first otherwise
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        reason = " ".join(str(error).split())[:150]
        raise ValueError(f"scorer: module {module_name} cannot be imported ({reason}); check its path") from error
    finally:
        sys.path.remove(os.getcwd())
    function: Function | None = getattr(module, attribute, None)
    if function is None or not callable(function):
        raise ValueError(f"scorer: {module_name} has no function {attribute}; check its name")
    try:
        inspect.signature(function).bind("answer", "gold")
    except TypeError:
        raise ValueError(f"scorer: {name} does not take two texts; write def {attribute}(answer, gold)") from None
    except ValueError:  # one written in C tells no signature
        pass
    return function
