"""What the generated sets share: invented words, sentences with their spans, and questions."""

import itertools
import random
from collections.abc import Sequence
from typing import Any, TypeVar

from latentlm.data.documents import Document
from latentlm.data.questions import Question, Split

VERSION = 1  # part of every seed: raise it whenever a change would alter words, facts or sentences
_CONSONANTS = "bdfgklmnprstvz"
_VOWELS = "aeiou"
MAX_WORDS = (len(_CONSONANTS) * len(_VOWELS)) ** 2 * len(_CONSONANTS)
T = TypeVar("T")


def stream(world: Any, name: str) -> random.Random:
    """Random numbers of one purpose; a string seed does not depend on the process."""
    return random.Random(f"{type(world).__name__}/{VERSION}/{world.seed}/{name}")


def invent(rng: random.Random, count: int) -> list[str]:
    """Different words of five letters, so that none is the start of another: ``exact`` compares starts."""
    if count > MAX_WORDS:
        raise ValueError(f"{count} words are needed and there are {MAX_WORDS}; make the set smaller")
    shapes = (_CONSONANTS, _VOWELS, _CONSONANTS, _VOWELS, _CONSONANTS)
    return ["".join(letters) for letters in rng.sample(list(itertools.product(*shapes)), count)]


def names(words: Sequence[str], length: int) -> list[str]:
    """Capitalised names of `length` words each; no word is in two of them."""
    return [" ".join(words[k : k + length]).title() for k in range(0, len(words), length)]


def tell(template: str, **slots: str) -> Document:
    """A document: the filled template and the character offsets of its slots, in the order they are given.

    >>> tell("{b} knows {a}.", a="Lopat", b="Miran")
    Document(text='Miran knows Lopat.', spans=((12, 17), (0, 5)), messages=None, related=None, target_span_ids=None)
    """
    text, spans = template, {}
    for slot in sorted(slots, key=lambda slot: template.index("{" + slot + "}")):
        start = text.index("{" + slot + "}")
        text = text[:start] + slots[slot] + text[start + len(slot) + 2 :]
        spans[slot] = start, start + len(slots[slot])
    return Document(text, [spans[slot] for slot in slots])


def ask(subset: str, split: Split, prompt: str, answer: str, fact: str, answer_type: str) -> Question:
    """A question whose candidates are the answers of its subset to what is asked; mistakes have a pool of their own."""
    pool = f"{subset}/{answer_type}" + (f"/{split}" if split in ("shortcut", "non_reciprocal") else "")
    return Question(subset, split, prompt, f" {answer}", fact, answer_type, pool)


def some(rng: random.Random, values: Sequence[T], count: int) -> list[T]:
    """At most `count` of them, in a random order."""
    return rng.sample(list(values), min(count, len(values)))


def check(low: int, **values: int) -> None:
    """ValueError that names the first value below `low`."""
    for key, value in values.items():
        if value < low:
            raise ValueError(f"{key}: {value}; set it to {low} or more")
