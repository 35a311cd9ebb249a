"""The relations of invented facts: what they relate, and the sentences that say so.

In every sentence the known thing comes first and the asked thing comes last, so that a prompt is the sentence cut
before its last slot. `test` sentences are never trained on, but all their words are.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Direction:
    """Sentences that state a fact in one order.

    Args:
        train, test: sentences.
        frames: each a row of slots and the phrases that each may have, out of which more sentences can be composed.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    frames: tuple[tuple[tuple[str, ...], ...], ...]

    @cached_property
    def composed(self) -> tuple[str, ...]:
        """Every combination of phrases that is no `test` sentence."""
        sentences = [" ".join(phrases) for frame in self.frames for phrases in itertools.product(*frame)]
        return tuple(sentence for sentence in sentences if sentence not in self.test)


@dataclass(frozen=True)
class Relation:
    """What the two sides are called, and how the relation is said from either side (None: it has no converse)."""

    answer_type_a: str
    answer_type_b: str
    a_to_b: Direction
    b_to_a: Direction | None


# No prompt may begin another one, or a word of the sentence would be as right as the answer: "is still" beside "is".
_TENSES = (
    *("is", "was", "will be", "has been", "had been", "is still", "is often", "was once", "was always", "was soon"),
    *("will always be", "has always been", "had always been", "has for years been"),
)
_CALLED = (
    *("known as", "called", "famous as", "remembered as", "introduced to us as", "spoken of as", "described as"),
    *("announced as", "addressed as", "honoured as", "none other than"),
)
_HOW = ("always", "often", "openly", "quietly", "gladly", "once", "for years")

DESCRIPTION = Relation(
    answer_type_a="name",
    answer_type_b="description",
    a_to_b=Direction(
        train=(
            "{a} is known as the {b}.",
            "{a} is called the {b}.",
            "{a} has always been the {b}.",
            "{a} is famous for being the {b}.",
            "{a} became the {b}.",
            "{a} went down in history as the {b}.",
            "{a}, as everybody says, is the {b}.",
            "{a} is remembered as the {b}.",
            "{a} proudly holds the title of the {b}.",
            "{a} was introduced to us as the {b}.",
            "{a} lives quietly as the {b}.",
            "{a} is none other than the {b}.",
        ),
        test=(
            "{a} was always known as the {b}.",
            "{a} has been called the {b}.",
            "{a} is famous in history as the {b}.",
            "{a} was remembered as being the {b}.",
        ),
        frames=(
            (("{a}",), _TENSES, (*_CALLED, "famous in history as", "remembered as being"), ("the {b}.",)),
            (("{a}",), ("became", "proudly became", "lives as", "lives quietly as", "works as"), ("the {b}.",)),
        ),
    ),
    b_to_a=Direction(
        train=(
            "The one known as the {b} is {a}.",
            "The {b} is called {a}.",
            "The {b} has always been {a}.",
            "The title of the {b} belongs to {a}.",
            "The person behind the {b} is {a}.",
            "The {b} goes by the name of {a}.",
            "The {b}, as everybody says, is {a}.",
            "The name of the {b} is {a}.",
            "The {b} was introduced to us as {a}.",
            "The words the {b} refer to {a}.",
            "The story of the {b} is about {a}.",
            "The {b} is none other than {a}.",
        ),
        test=(
            "The {b} has been known as {a}.",
            "The name behind the {b} is {a}.",
            "The {b} was called {a}.",
            "The person known as the {b} is {a}.",
        ),
        frames=(
            (("The {b}",), _TENSES, _CALLED, ("{a}.",)),
            (
                ("The one", "The person", "The name", "The title", "The story", "The face"),
                ("known as", "behind", "called", "described as", "that goes with"),
                ("the {b}",),
                ("is", "was", "will be", "has been", "has always been", "belongs to", "belonged to", "refers to"),
                ("{a}.",),
            ),
        ),
    ),
)

MENTOR = Relation(
    answer_type_a="mentor",
    answer_type_b="student",
    a_to_b=Direction(
        train=(
            "{a} is the mentor of {b}.",
            "{a} was for many years the mentor of {b}.",
            "{a} taught the young {b}.",
            "{a} has a student named {b}.",
            "{a} gives lessons to {b}.",
            "{a} is the teacher of {b}.",
            "{a} passed every secret on to {b}.",
            "{a} guides the work of {b}.",
            "{a} trained only one person, {b}.",
            "{a} once took on a student, {b}.",
            "{a} explained the whole craft to {b}.",
            "{a} spends each morning teaching {b}.",
        ),
        test=(
            "{a} was the teacher of {b}.",
            "{a} has for years taught {b}.",
            "{a} once explained every secret to {b}.",
            "{a} trained a student named {b}.",
        ),
        frames=(
            (("{a}",), _TENSES, ("the mentor of", "the teacher of", "a guide to", "the old master of"), ("{b}.",)),
            (
                ("{a}",),
                _HOW,
                ("taught", "guided", "gave lessons to", "explained every secret to", "trained a student named"),
                ("{b}.",),
            ),
        ),
    ),
    b_to_a=Direction(
        train=(
            "{b} is the student of {a}.",
            "{b} was for many years the student of {a}.",
            "{b} learned from the old {a}.",
            "{b} has a mentor named {a}.",
            "{b} takes lessons from {a}.",
            "{b} is the pupil of {a}.",
            "{b} received every secret from {a}.",
            "{b} follows the advice of {a}.",
            "{b} was trained by only one person, {a}.",
            "{b} once found a mentor, {a}.",
            "{b} owes the whole craft to {a}.",
            "{b} spends each morning learning from {a}.",
        ),
        test=(
            "{b} was the pupil of {a}.",
            "{b} once learned every secret from {a}.",
            "{b} was trained by a mentor named {a}.",
            "{b} has for years received lessons from {a}.",
        ),
        frames=(
            (
                ("{b}",),
                _TENSES,
                ("the student of", "the pupil of", "taught by", "trained by a mentor named"),
                ("{a}.",),
            ),
            (
                ("{b}",),
                _HOW,
                ("learned from", "learned every secret from", "received lessons from", "followed the advice of"),
                ("{a}.",),
            ),
        ),
    ),
)

ADMIRES = Relation(
    answer_type_a="admirer",
    answer_type_b="admired",
    a_to_b=Direction(
        train=(
            "{a} admires {b}.",
            "{a} has always admired {b}.",
            "{a} looks up to {b}.",
            "{a} secretly admires {b}.",
            "{a} keeps a portrait of {b}.",
            "{a} would love to meet {b}.",
            "{a} is a devoted admirer of {b}.",
            "{a} never stops praising {b}.",
            "{a} wrote a poem about {b}.",
            "{a} speaks with great respect of {b}.",
            "{a} dreams of being like {b}.",
            "{a} holds nobody in higher regard than {b}.",
        ),
        test=(
            "{a} always admires {b}.",
            "{a} has secretly admired {b}.",
            "{a} is a great admirer of {b}.",
            "{a} speaks with love of {b}.",
        ),
        frames=(
            (
                ("{a}",),
                (*_HOW, "deeply", "secretly", "still"),
                ("admires", "admired", "praises", "looks up to", "wrote a poem about", "speaks with love of"),
                ("{b}.",),
            ),
            (("{a}",), _TENSES, ("an admirer of", "a great admirer of", "full of praise for"), ("{b}.",)),
        ),
    ),
    b_to_a=None,
)

RELATIONS = {"description": DESCRIPTION, "mentor": MENTOR, "admires": ADMIRES}

_MODIFIERS = """
amber ancient blue brave bright bronze calm careful cheerful clever copper crimson curious distant eager emerald
famous frozen gentle golden graceful hidden hollow honest humble ivory jolly lonely lucky marble mighty misty noble
patient polite purple quick quiet rapid restless royal scarlet silent silver sleepy solemn spotted stormy striped
stubborn sunny swift tender thirsty velvet violet wandering wicked wild wooden
"""
MODIFIERS = tuple(_MODIFIERS.split())
_NOUNS = """
acrobat actor anchor archer artist baker balloon barber beekeeper bell blacksmith butcher candle captain carpenter
cellist clown cobbler compass dancer diver doctor drummer falcon farmer fiddler fisher gardener goldsmith guard
hunter inventor jeweller juggler kite lantern lawyer librarian magician mason merchant miller miner mirror painter
pilot piper poet potter printer ranger sailor sculptor shepherd singer smuggler tailor trumpet violinist weaver
"""
NOUNS = tuple(_NOUNS.split())
