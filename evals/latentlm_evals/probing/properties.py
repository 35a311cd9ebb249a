"""What probes look for in a text: generated sentences with one thing changed, and the attributes of a run's facts.

Each property has sentences in balanced classes; every sentence carries the entity and the template it was made of, so
that training and test share neither.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latentlm.data import Facts

VERSION = 1  # part of every seed


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    """``a / b; c / d`` as pairs."""
    first, second = zip(*(each.split(" / ") for each in text.split("; ")), strict=True)
    return tuple(zip(first, second, strict=True))


SUBJECTS = (
    "doctor", "farmer", "teacher", "pilot", "singer", "lawyer", "baker", "sailor", "painter", "soldier", "judge",
    "writer", "dancer", "driver", "miner", "tailor", "hunter", "priest", "clerk", "nurse", "guard", "cook", "monk",
    "king", "poet", "actor", "banker", "weaver", "joiner", "porter", "keeper", "ranger", "scholar", "butcher", "carver",
    "gardener", "librarian", "carpenter", "engineer", "surgeon", "shepherd", "merchant", "student", "tourist",
)  # fmt: skip
VERBS = _pairs(
    "opens / opened; finds / found; takes / took; sees / saw; holds / held; brings / brought; keeps / kept; "
    "loses / lost; sells / sold; makes / made; paints / painted; cleans / cleaned; moves / moved; wants / "
    "wanted; carries / carried; leaves / left; breaks / broke; draws / drew; hides / hid; throws / threw"
)
OBJECTS = (
    "box", "letter", "lamp", "chair", "book", "basket", "knife", "coat", "ring", "map", "bottle", "mirror", "ladder",
    "drum", "candle", "clock", "wheel", "rope", "key", "blanket",
)  # fmt: skip
PLACES = ("near the river", "in the old house", "behind the mill", "at the market", "on the hill", "by the road")
# two clauses whose order the world decides
SEQUENCES = _pairs(
    "unlocked the door / walked inside; lit the stove / cooked the soup; bought the seeds / planted them; "
    "opened the envelope / read the letter; filled the bucket / carried it home; saddled the horse / rode "
    "away; caught a fish / fried it; woke up / got out of bed; climbed the tower / looked down from the top; "
    "washed the apple / ate it; wrote a song / sang it to the crowd; dug a hole / buried the chest in it; "
    "fell ill / recovered slowly; lost the ring / found it again; built a boat / sailed it across the lake; "
    "picked the grapes / pressed them into wine; took off the coat / hung it on a hook; poured the tea / "
    "drank it; broke the vase / glued it together; borrowed a book / returned it a week later"
)
FRAMES = ("The {0} {1} {2}", "Every day the {0} {1} {2}", "People say that the {0} {1} {2}", "We know the {0} {1} {2}")


@dataclass(frozen=True)
class Property:
    """Sentences or images and what is to be read off each.

    Attributes:
        name: of the property.
        inputs: sentences or images.
        labels: class of each, from 0.
        entities, templates: what each was made of.
        classes: number of classes.
    """

    name: str
    inputs: Sequence[Any]
    labels: list[int]
    entities: list[str]
    templates: list[str]
    classes: int


def linguistic(count: int, seed: int) -> list[Property]:
    """Tense, number, order shift and coordination inversion, `count` sentences each, half of each kind.

    Source: Conneau et al. 2018, arXiv:1805.01070 (the tasks). Differs: generated minimal pairs instead of books.
    """
    return [_property(name, make, count, seed) for name, make in _MAKERS.items()]


def attributes(facts: Facts, count: int) -> list[Property]:
    """Of a run's facts: the noun of a description, read off the name alone, and the first name, off the description.

    There is one template; every person comes once.
    """
    people = [fact for fact in facts.facts() if fact.relation == "description"][:count]
    found = []
    for name, text, word in (
        ("noun of the description, from the name", lambda f: f.a, lambda f: f.b.split()[-1]),
        ("first name, from the description", lambda f: f.b, lambda f: f.a.split()[0]),
    ):
        words = sorted({word(fact) for fact in people})
        places = {each: place for place, each in enumerate(words)}
        labels = [places[word(fact)] for fact in people]
        if people:  # of one class or too few: named with the result
            names = [fact.a for fact in people]
            found.append(Property(name, [text(f) for f in people], labels, names, [""] * len(names), len(words)))
    return found


def _property(name: str, make, count: int, seed: int) -> Property:
    rng = random.Random(f"probing/{VERSION}/{seed}/{name}")
    rows: dict[str, tuple[int, str, str]] = {}
    while len(rows) < count:
        for label, (text, entity, template) in enumerate(make(rng)):
            rows.setdefault(text, (label, entity, template))
    chosen = list(rows.items())[:count]
    rng.shuffle(chosen)
    labels, entities, templates = (list(column) for column in zip(*(row for _, row in chosen), strict=True))
    return Property(name, [text for text, _ in chosen], labels, entities, templates, 2)


def _tense(rng: random.Random) -> list[tuple[str, str, str]]:
    subject, verbs, place, frame = rng.choice(SUBJECTS), rng.choice(VERBS), _ending(rng), rng.choice(FRAMES)
    return [(frame.format(subject, verb, place) + ".", subject, frame) for verb in verbs]


def _number(rng: random.Random) -> list[tuple[str, str, str]]:
    subject, verbs, place, frame = rng.choice(SUBJECTS), rng.choice(VERBS), _ending(rng), rng.choice(FRAMES)
    # past tense: the verb must not tell
    return [(frame.format(each, verbs[1], place) + ".", subject, frame) for each in (subject, subject + "s")]


def _order(rng: random.Random) -> list[tuple[str, str, str]]:
    text, subject, frame = _tense(rng)[rng.randrange(2)]
    words = text.removesuffix(".").split()
    place = rng.randrange(1, len(words) - 1)
    shifted = [*words[:place], words[place + 1], words[place], *words[place + 2 :]]
    return [(text, subject, frame), (" ".join(shifted) + ".", subject, frame)]


def _coordination(rng: random.Random) -> list[tuple[str, str, str]]:
    subject, (first, then), joint = rng.choice(SUBJECTS), rng.choice(SEQUENCES), rng.choice((" and ", " and then "))
    place = rng.choice(("", " " + rng.choice(PLACES)))
    clauses = ((first, then), (then, first))
    # the clause is what a probe could learn by heart: it is the entity that training and test do not share
    return [(f"The {subject}{place} {a}{joint}{b}.", first, joint) for a, b in clauses]


def _ending(rng: random.Random) -> str:
    return f"the {rng.choice(OBJECTS)} {rng.choice(PLACES)}"


_MAKERS = {"tense": _tense, "number": _number, "order shift": _order, "coordination inversion": _coordination}
