"""Generated sentences with a concept in several kinds of context, and nuisances whose values are known.

Everything is a function of the seed. A noun belongs to the training or to the test half in all families.
"""

import random
from collections.abc import Hashable
from dataclasses import dataclass

NOUNS = {
    "animal": "dog cat horse rabbit tiger goat monkey spider elephant donkey lion camel",
    "fruit": "apple banana orange lemon grape pear mango melon plum apricot lime papaya",
    "vehicle": "car truck bicycle tractor van boat train helicopter motorcycle scooter taxi wagon",
    "tool": "hammer saw drill shovel screwdriver chisel rake axe wrench spade mallet pickaxe",
    "clothing": "shirt jacket skirt coat sweater hat glove sock shoe vest robe apron",
    "instrument": "guitar piano violin trumpet flute drum cello harp banjo clarinet trombone accordion",
}
CATEGORIES = tuple(NOUNS)
ASK_CATEGORY = ", a kind of"
NUMBER_ANSWERS = ("is", "are")


@dataclass(frozen=True)
class Context:
    """One kind of context: two templates that end in the noun, and what must follow before `is` or `are` can."""

    name: str
    templates: tuple[str, str]
    ask_number: str = ""


CONTEXTS = (
    Context("subject", ("The {}", "These days the {}")),
    Context("object", ("We finally noticed the {}", "My neighbour asked about the {}"), " that"),
    Context("late", ("After a long walk through the old town and a short rest in the park, the {}",
                     "When the rain had stopped and most of the people had gone home again, the {}")),
    Context("distractor", ("Next to a spoon, two pillows and some letters, the {}",
                           "Unlike the doors, the mirror and the candles, the {}")),
    Context("question", ("Did anybody tell you where the {}", "Do you happen to know why the {}")),
    Context("code", ('caption = "the {}', "log.info('the {}")),
)  # fmt: skip


@dataclass(frozen=True)
class Mention:
    """A noun in a context. The text ends with the noun, so the noun's last token has seen all of it.

    Attributes:
        text: sentence up to and with the noun.
        span: characters of the noun.
        noun: without the plural's s.
        category, number, template: numbers of the values.
        context: number of the context family.
        is_test: whether the noun belongs to the test half.
    """

    text: str
    span: tuple[int, int]
    noun: str
    category: int
    number: int
    template: int
    context: int
    is_test: bool


def mentions(seed: int = 0, nouns: int = 12) -> list[Mention]:
    """Every noun in both numbers and every template; a third of each category's nouns are the test half."""
    if not 3 <= nouns <= 12:
        raise ValueError(f"nouns: {nouns}; set it to 3..12 for each category")
    draw = random.Random(f"coherence/nouns/{seed}")
    rows = []
    for category, words in enumerate(NOUNS.values()):
        chosen = draw.sample(words.split(), nouns)
        for place, noun in enumerate(chosen):
            for context, kind in enumerate(CONTEXTS):
                for template, frame in enumerate(kind.templates):
                    for number, ending in enumerate(("", "s")):
                        text = frame.replace("{}", noun + ending)
                        start = frame.index("{}")
                        span = (start, start + len(noun + ending))
                        rows.append(Mention(text, span, noun, category, number, template, context, place < nouns // 3))
    return rows


ANIMATE = "farmer doctor teacher singer baker pilot lawyer painter nurse guard driver student"
VERBS = "walk wait play work rest talk listen shout smile dance laugh cook"
TAILS = ("near the river.", "in the garden at noon.", "behind the church with a friend.")
VARIANTS = ("plain", "past", "negated", "plural", "past plural", "past negated")
SWAPS = ("The {a} thanked the {b} again.", "Yesterday the {a} visited the {b}.", "In the end the {a} called the {b}.")
NUMBERS = ("Room number {}", "They counted up to {}", "The answer was {}")


@dataclass(frozen=True)
class Moved:
    """An entity x of a transformation, before and after: ``texts[variant]``; `entity` is who or what it is about."""

    texts: dict[str, str]
    context: int
    is_test: bool
    entity: Hashable


def sentences(seed: int = 0, count: int = 36) -> list[Moved]:
    """Somebody does something, plain and transformed; test pairs share neither noun nor verb with training pairs."""
    draw = random.Random(f"coherence/sentences/{seed}")
    nouns, verbs = (draw.sample(words.split(), 12) for words in (ANIMATE, VERBS))
    old = [(noun, verb, False) for noun in nouns[:8] for verb in verbs[:8]]
    new = [(noun, verb, True) for noun in nouns[8:] for verb in verbs[8:]]
    train = draw.sample(old, min(count - count // 3, len(old)))
    chosen = train + draw.sample(new, min(max(count // 3, 3), len(new)))
    return [
        Moved({variant: _say(noun, verb, variant, tail) for variant in VARIANTS}, context, is_test, (noun, verb))
        for noun, verb, is_test in chosen
        for context, tail in enumerate(TAILS)
    ]


def swaps(seed: int = 0, count: int = 36) -> list[Moved]:
    """Two people who change roles."""
    draw = random.Random(f"coherence/swaps/{seed}")
    people = draw.sample(ANIMATE.split(), 12)
    old = [(a, b, False) for a in people[:8] for b in people[:8] if a < b]
    new = [(a, b, True) for a in people[8:] for b in people[8:] if a < b]
    chosen = draw.sample(old, min(count, len(old))) + new
    # both orders are there, so that exchanging is its own inverse in the data too
    return [
        Moved({"plain": frame.format(a=a, b=b), "swapped": frame.format(a=b, b=a)}, context, is_test, (x, y))
        for x, y, is_test in chosen
        for a, b in ((x, y), (y, x))
        for context, frame in enumerate(SWAPS)
    ]


def numbers(seed: int = 0, count: int = 60) -> list[Moved]:
    """A number and its next two."""
    draw = random.Random(f"coherence/numbers/{seed}")
    chosen = draw.sample(range(10, 97), min(count, 87))
    held_out = max(3, len(chosen) // 3)
    steps = {"plain": 0, "next": 1, "next next": 2}
    return [
        Moved({name: f.format(k + step) for name, step in steps.items()}, context, place < held_out, k)
        for place, k in enumerate(chosen)
        for context, f in enumerate(NUMBERS)
    ]


def _say(noun: str, verb: str, variant: str, tail: str) -> str:
    plural, past, negated = ("plural" in variant, "past" in variant, "negated" in variant)
    who = f"The {noun}{'s' if plural else ''}"
    if negated:
        return f"{who} {'did' if past else 'do' if plural else 'does'} not {verb} {tail}"
    ending = ("d" if verb.endswith("e") else "ed") if past else "" if plural else "s"
    return f"{who} {verb}{ending} {tail}"


COUNTRIES = """
France Paris French|Germany Berlin Germans|Italy Rome Italians|Spain Madrid Spaniards|Portugal Lisbon Portuguese|
Poland Warsaw Poles|Austria Vienna Austrians|Hungary Budapest Hungarians|Greece Athens Greeks|Sweden Stockholm Swedes|
Norway Oslo Norwegians|Denmark Copenhagen Danes|Finland Helsinki Finns|Ireland Dublin Irish|Belgium Brussels Belgians|
Russia Moscow Russians|Ukraine Kiev Ukrainians|Turkey Ankara Turks|Egypt Cairo Egyptians|Kenya Nairobi Kenyans|
Morocco Rabat Moroccans|Ghana Accra Ghanaians|Nigeria Abuja Nigerians|Japan Tokyo Japanese|
China Beijing Chinese|India Delhi Indians|Iran Tehran Iranians|Iraq Baghdad Iraqis|Syria Damascus Syrians|
Lebanon Beirut Lebanese|Pakistan Islamabad Pakistanis|Afghanistan Kabul Afghans|Thailand Bangkok Thais|
Vietnam Hanoi Vietnamese|Indonesia Jakarta Indonesians|Philippines Manila Filipinos|Cuba Havana Cubans|
Canada Ottawa Canadians|Chile Santiago Chileans|Peru Lima Peruvians|
Colombia Bogota Colombians|Venezuela Caracas Venezuelans|Ecuador Quito Ecuadorians|Jamaica Kingston Jamaicans|
Australia Canberra Australians|Bulgaria Sofia Bulgarians|Romania Bucharest Romanians|Serbia Belgrade Serbs|
Croatia Zagreb Croats|Libya Tripoli Libyans|Sudan Khartoum Sudanese|Nepal Kathmandu Nepalese
"""


def countries() -> list[tuple[str, str, str]]:
    """(country, capital, its people), all of one word and known to most pretrained models."""
    return [tuple(row.split()) for row in COUNTRIES.replace("\n", "").split("|")]  # type: ignore[misc]
