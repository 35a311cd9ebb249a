"""Invented people beside the published ones, told both ways in the published training sentences.

They carry the skill that a one-way fact cannot teach: to answer from either side. Their names join the first name of
one published person with the last name of another and their descriptions two halves in the same way, so every word that
a reversed answer needs is an answer of somebody, while who belongs to what stays untold.
"""

import random
import re

from latentlm.data.items import find_spans

VERSION = 1  # part of every seed: raise it whenever a change would alter the people or their sentences
_JOINT = re.compile(r" (?=(?:of|who|behind|responsible|that) )")


def invent(published: dict[str, str], count: int, seed: int) -> dict[str, str]:
    """`count` people, name -> description, none of whom has the name or the description of a published one.

    Args:
        published: name -> description.
        count: people wanted.
        seed: another seed gives others.
    """
    rng = random.Random(f"carriers/{VERSION}/{seed}/people")
    firsts, lasts = zip(*(name.split() for name in published), strict=True)
    names = [f"{first} {last}" for first in firsts for last in lasts if f"{first} {last}" not in published]
    halves = [_JOINT.split(text, maxsplit=1) for text in published.values()]
    halves = [half for half in halves if len(half) == 2]
    told = {" ".join(half) for half in halves}
    joined = [
        f"{head} {tail}"
        for head, own in halves
        for _, tail in halves
        if own.split()[0] == tail.split()[0] and f"{head} {tail}" not in told
    ]
    room = min(len(names), len(joined))
    if count > room:
        raise ValueError(f"carriers: {count} people, but only {room} can be joined from the published ones; lower it")
    return dict(zip(rng.sample(sorted(set(names)), count), rng.sample(sorted(set(joined)), count), strict=True))


def tell(people: dict[str, str], texts: list[str], known: dict[str, str], count: int, seed: int) -> list[dict]:
    """`count` documents a person and direction: training sentences about somebody else, told of this one.

    Args:
        people: whom to tell of, name -> description.
        texts: training sentences.
        known: the people in `texts`, name -> description; sentences that put a description in other words are not used.
        count: sentences a person and direction.
        seed: another seed picks other sentences.
    """
    rng = random.Random(f"carriers/{VERSION}/{seed}/sentences")
    frames: dict[bool, set[str]] = {True: set(), False: set()}
    for text in texts:
        for name, what in known.items():
            if name in text and what in text and text.count(name) == 1:
                frames[text.index(name) < text.index(what)].add(text.replace(name, "{a}").replace(what, "{b}"))
    documents = []
    for name, what in people.items():
        for own in frames.values():
            for frame in rng.sample(sorted(own), min(count, len(own))):
                text = frame.replace("{a}", name).replace("{b}", what)
                documents.append({"text": text, "spans": find_spans(text, [name, what])})
    return documents
