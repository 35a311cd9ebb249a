"""Which spans of a document are related to one another, and how each is read."""

import random
import re
from dataclasses import dataclass
from typing import Literal

from latentlm.data.phrases import Phrases


@dataclass(frozen=True)
class Given:
    """The spans that the data marks.

    Args:
        read: ``alone`` reads a span that could see the other one as a document of its own; ``in_place`` reads every
            span where it stands (the control: the later one has seen what it is to name); ``first`` relates the earlier
            span alone to the later one, so that nothing but the later one is read twice.
        crop: share of the spans of four words or more that lose words of their beginning where they are read alone, up
            to half of them; so a part of a description says whose it is, like a crop of a picture what is in it.
        seed: another seed crops other spans.
    """

    read: Literal["alone", "in_place", "first"] = "alone"
    crop: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if not 0 <= self.crop <= 1:
            raise ValueError(f"given: crop {self.crop} is a share; set it to 0 - 1")
        if self.crop and self.read != "alone":
            raise ValueError(f"given: crop cuts spans that are read alone, and read is {self.read}; leave it out")

    def mark(self, documents: list[dict]) -> list[dict]:
        """The documents with ``cuts``, the characters a span loses where it is read alone, if any is cropped."""
        if not self.crop:
            return documents
        rng = random.Random(f"crop/{self.seed}")
        return [{**document, "cuts": self._cuts(document, rng)} for document in documents]

    def _cuts(self, document: dict, rng: random.Random) -> list[int]:
        messages = document.get("messages")
        text = "\n".join(message["content"] for message in messages) if messages else document["text"]
        cuts = []
        for start, end in document.get("spans", ()):
            words = [match.start() for match in re.finditer(r"\S+", text[start:end])]
            cropped = len(words) >= 4 and rng.random() < self.crop
            cuts.append(words[rng.randint(1, len(words) // 2)] if cropped else 0)
        return cuts


@dataclass(frozen=True)
class Chunks:
    """Spans that nobody marked: two runs of words of each document, drawn at random, that do not touch the same word.

    Checked:   tests/test_data_pairs.py - disjoint, lengths, the same in all processes.

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
