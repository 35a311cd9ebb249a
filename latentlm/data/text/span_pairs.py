"""Which spans of a document are related to one another, and how each is read."""

import itertools
import random
import re
from dataclasses import dataclass
from typing import Literal

from latentlm.data.text.phrase_mining import Phrases


@dataclass(frozen=True)
class Given:
    """The spans that the data marks.

    Args:
        read: ``alone`` reads a span that could see the other one as a document of its own; ``in_place`` reads every
            span where it stands (the control: the later one has seen what it is to name); ``first`` relates the earlier
            span alone to the later one, so that nothing but the later one is read twice.
        crop: share of the spans of four words or more that lose words of their beginning where they are read alone, up
            to half of them; so a part of a description says whose it is, like a crop of a picture what is in it.
        read_on: share of the spans read alone that go on with words which stand behind such a span in some document,
            up to eight and before the other span begins; the last of them is then where the span is read, so what is
            known of it has to be held while reading on.
        strangers: share of the spans read alone that go on, behind those words, with a span that stands in the other's
            place in another document, wrongly: where the words of the other span are due, those just read do not tell
            them (`target_positions`).
        named: numbers of the spans that the others are to name (0 of a fact is the name); none: all of them.
        seed: another seed crops other spans, reads on otherwise, and takes others for strangers.
    """

    read: Literal["alone", "in_place", "first"] = "alone"
    crop: float = 0.0
    read_on: float = 0.0
    strangers: float = 0.0
    named: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self):
        for key in ("crop", "read_on", "strangers"):
            if not 0 <= (share := getattr(self, key)) <= 1:
                raise ValueError(f"given: {key} {share} is a share; set it to 0 - 1")
            if share and self.read != "alone":
                raise ValueError(f"given: {key} is of spans that are read alone, and read is {self.read}; leave it out")
        if any(number < 0 for number in self.named):
            raise ValueError(f"given: named {list(self.named)} are numbers of spans; the first one is 0")

    def mark(self, documents: list[dict]) -> list[dict]:
        """The documents with ``cuts``, ``tails``, ``strangers`` and ``named``: see `encode`."""
        if self.crop:
            rng = random.Random(f"crop/{self.seed}")
            documents = [{**document, "cuts": self._cuts(document, rng)} for document in documents]
        if self.read_on:
            rng, behind = random.Random(f"read_on/{self.seed}"), _behind(documents)
            documents = [{**document, "tails": self._tails(document, behind, rng)} for document in documents]
        if self.strangers:
            rng, spans = random.Random(f"strangers/{self.seed}"), _by_number(documents)
            documents = [{**document, "strangers": self._strangers(document, spans, rng)} for document in documents]
        if self.named:
            most = max((len(document.get("spans", ())) for document in documents), default=0)
            if max(self.named) >= most:
                raise ValueError(f"given: named {list(self.named)}, but documents have {most} spans; count from 0")
            documents = [{**document, "named": [*self.named]} for document in documents]
        return documents

    def _strangers(self, document: dict, spans: dict[int, list[str]], rng: random.Random) -> list[str]:
        text, found = _text(document), []
        for number, (start, end) in enumerate(document.get("spans", ())):
            drawn = rng.choice(spans[number])
            # one that is the right one after all is left out: nothing tells whose it is
            found.append(drawn if rng.random() < self.strangers and drawn.lower() != text[start:end].lower() else "")
        return found

    def _tails(self, document: dict, behind: dict[int, list[str]], rng: random.Random) -> list[str]:
        everything = behind[-1]
        return [
            rng.choice(behind.get(number, everything)) if everything and rng.random() < self.read_on else ""
            for number in range(len(document.get("spans", ())))
        ]

    def _cuts(self, document: dict, rng: random.Random) -> list[int]:
        text, cuts = _text(document), []
        for start, end in document.get("spans", ()):
            words = [match.start() for match in re.finditer(r"\S+", text[start:end])]
            cropped = len(words) >= 4 and rng.random() < self.crop
            cuts.append(words[rng.randint(1, len(words) // 2)] if cropped else 0)
        return cuts


def _text(document: dict) -> str:
    messages = document.get("messages")
    return "\n".join(message["content"] for message in messages) if messages else document["text"]


def _by_number(documents: list[dict]) -> dict[int, list[str]]:
    """The spans of all documents, by their number."""
    found: dict[int, list[str]] = {}
    for document in documents:
        for number, (start, end) in enumerate(document.get("spans", ())):
            found.setdefault(number, []).append(_text(document)[start:end])
    return found


def _behind(documents: list[dict]) -> dict[int, list[str]]:
    """What stands between a span and the next one, by the number of the span (a name, a description); of all: -1."""
    found: dict[int, list[str]] = {-1: []}
    for document in documents:
        text, ordered = _text(document), sorted(enumerate(document.get("spans", ())), key=lambda part: part[1])
        for (number, (_, end)), (_, (start, _)) in itertools.pairwise(ordered):
            words = [match.end() for match in re.finditer(r"\S+", text[end:start])]
            if words:
                gap = text[end : end + words[min(len(words), 8) - 1]]
                found.setdefault(number, []).append(gap)
                found[-1].append(gap)
    return found


@dataclass(frozen=True)
class Chunks:
    """Spans that nobody marked: two runs of words of each document, drawn at random, that do not touch the same word.

    Checked:   tests/data/text/test_span_pairs.py - disjoint, lengths, the same in all processes.

    Args:
        shortest, longest: words in a run.
        seed: another seed draws other runs.
        read: as in `Given`.
    """

    shortest: int = 2
    longest: int = 5
    seed: int = 0
    read: Literal["alone", "in_place", "first"] = "alone"

    def __post_init__(self):
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(
                f"chunks: shortest {self.shortest} and longest {self.longest}; set 1 <= shortest <= longest"
            )

    def mark(self, documents: list[dict]) -> list[dict]:
        """The documents with `spans` drawn anew; one of too few words gets none."""
        rng = random.Random(f"chunks/{self.seed}")
        return [{**document, "spans": self._draw(document["text"], rng)} for document in documents]

    def _draw(self, text: str, rng: random.Random) -> list[list[int]]:
        words = [match.span() for match in re.finditer(r"\S+", text)]
        if len(words) < 2 * self.shortest:
            return []
        lengths = [rng.randint(self.shortest, min(self.longest, len(words) // 2)) for _ in range(2)]
        spare = sorted(rng.randint(0, len(words) - sum(lengths)) for _ in range(2))
        starts = spare[0], spare[1] + lengths[0]
        return [[words[start][0], words[start + n - 1][1]] for start, n in zip(starts, lengths, strict=True)]


Pairs = Given | Chunks | Phrases
