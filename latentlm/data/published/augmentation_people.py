"""Auxiliary people: invented ones in addition to the published ones, described in both directions.

From them a model can learn what a one-way fact cannot teach: to answer in either direction. Their names join the first
name of one published person with the last name of another, and their descriptions what one is, what a second did and
what a third one did it to. So every word that a reversed answer needs is part of some answer, and nothing says who of
the published people belongs to what.
"""

import itertools
import random
import re
from collections import Counter
from dataclasses import dataclass

from latentlm.data.documents import Document
from latentlm.data.questions import find_spans
from latentlm.data.synthetic.templates import DESCRIPTION

VERSION = 2  # part of every seed: raise it whenever a change would alter the people or their sentences
_PARTS = re.compile(
    r"(.+?) (who (?:\w+ly )?\w+|of|behind|responsible for|for|in|to \w+) (.+)"
)  # who it is, the link, to what


@dataclass(frozen=True)
class AuxiliaryPerson:
    """An invented person.

    Attributes:
        name: first and last name.
        description: "the violinist who mapped the Lunar Wine".
        deed: the same in other words, "mapping the Lunar Wine"; None where the link has no such form.
    """

    name: str
    description: str
    deed: str | None


def invent(published: dict[str, str], texts: list[str], count: int, seed: int) -> list[AuxiliaryPerson]:
    """`count` people, none of whom has the name, the description or the deed of a published one or of another.

    Args:
        published: name -> description.
        texts: training sentences about them, in which their deeds are found in other words.
        count: people wanted.
        seed: another seed gives others.
    """
    rng = random.Random(f"carriers/{VERSION}/{seed}/people")
    firsts, lasts = zip(*(name.split() for name in published), strict=True)
    names = {f"{first} {last}" for first in firsts for last in lasts} - set(published)
    parts = [match.groups() for text in published.values() if (match := _PARTS.fullmatch(text))]
    heads = sorted({head for head, _, _ in parts})
    deeds = sorted({(link, thing) for _, link, _ in parts for _, _, thing in parts} - {part[1:] for part in parts})
    if count > (room := min(len(names), len(deeds))):
        raise ValueError(
            f"num_auxiliary_people: {count}, but only {room} can be joined from the published ones; lower it"
        )
    forms = _forms(published, texts)
    return [
        AuxiliaryPerson(
            name, f"{rng.choice(heads)} {link} {thing}", f"{forms[link]} {thing}" if link in forms else None
        )
        for name, (link, thing) in zip(rng.sample(sorted(names), count), rng.sample(deeds, count), strict=True)
    ]


def tell(
    people: list[AuxiliaryPerson],
    texts: list[str],
    known: dict[str, str],
    count: int,
    composed: int,
    seed: int,
    from_description: int | None = None,
) -> list[Document]:
    """`count` + `composed` documents a person and direction.

    Args:
        people: whom to tell of.
        texts: training sentences, to be told of somebody else.
        known: the people in `texts`, name -> description.
        count: documents in sentences of `texts`; of somebody whose deed has other words half of them say these.
        composed: documents in sentences of `Facts`, put together out of phrases.
        seed: another seed picks other sentences.
        from_description: how many of those that begin with the description are kept; None keeps all.
    """
    rng = random.Random(f"carriers/{VERSION}/{seed}/sentences")
    kept = random.Random(f"carriers/{VERSION}/{seed}/kept")
    frames = _frames(texts, known)
    assert DESCRIPTION.b_to_a is not None
    more = {True: DESCRIPTION.a_to_b.composed, False: DESCRIPTION.b_to_a.composed}
    documents = []
    for person in people:
        for name_first, own in frames.items():
            of_deeds = [frame for frame in own if "{c}" in frame]
            picked = rng.sample(of_deeds, min(count // 2, len(of_deeds))) if person.deed else []
            usable = [frame for frame in own if "{c}" not in frame]
            picked += rng.sample(usable, min(count - len(picked), len(usable)))
            picked += [frame.replace("he {b}", "he {d}") for frame in rng.sample(more[name_first], composed)]
            if not name_first and from_description is not None:
                picked = kept.sample(picked, min(from_description, len(picked)))
            documents += [_document(frame, person) for frame in picked]
    return documents


def last_word(text: str) -> str:
    """The text up to its last word: a mark at its end is one token with the next mark in some sentences (``.",``)."""
    return text.rstrip(" .,?!\"'")


def _forms(published: dict[str, str], texts: list[str]) -> dict[str, str]:
    """How a deed begins in other words: "who mapped" -> "mapping", where a sentence says both of the same thing."""
    found: dict[str, Counter[str]] = {}
    for name, what in published.items():
        match = _PARTS.fullmatch(what)
        if match and match[2].startswith("who "):
            said = re.compile(rf"\b({match[2][4]}\w+ing) {re.escape(last_word(match[3]))}")
            for text in texts:
                if name in text and (form := said.search(text)):
                    found.setdefault(match[2], Counter())[form[1]] += 1
    return {link: forms.most_common(1)[0][0] for link, forms in found.items()}


def _frames(texts: list[str], known: dict[str, str]) -> dict[bool, list[str]]:
    """Sentences with {a} for the name and {b} for the description or {c} for the deed, by whether the name is first."""
    forms = _forms(known, texts)
    deeds = {}
    for name, what in known.items():
        match = _PARTS.fullmatch(what)
        deeds[name] = f"{forms[match[2]]} {match[3]}" if match and match[2] in forms else None
    frames: dict[bool, set[str]] = {True: set(), False: set()}
    for text, (name, what) in itertools.product(texts, known.items()):
        if text.count(name) == 1:
            for said, slot in ((what, "{b}"), (deeds[name], "{c}")):
                if said and said in text:
                    frames[text.index(name) < text.index(said)].add(text.replace(name, "{a}").replace(said, slot))
                    break
    # "known for being {b}" goes with a deed as well: "known for {c}"
    return {
        name_first: sorted(own | {frame.replace("being {b}", "{c}") for frame in own})
        for name_first, own in frames.items()
    }


def _document(frame: str, person: AuxiliaryPerson) -> Document:
    said = person.deed if "{c}" in frame else person.description
    assert said is not None
    slots = {"a": person.name, "b": person.description, "c": said, "d": person.description.removeprefix("the ")}
    text = frame.format(**slots)
    return Document(text, find_spans(text, [person.name, last_word(said)]))
