"""Which spans of a document are related to each other, and in which context each source is read."""

import random
import re
from dataclasses import dataclass, replace

from latentlm.data.documents import Document, Span
from latentlm.data.text.encode import SourceContext
from latentlm.data.text.phrase_mining import Phrases


@dataclass(frozen=True)
class Annotated:
    """The spans that the data marks.

    Args:
        source_context: ``isolated`` reads a source that could see its target as a sequence of its own; ``in_context``
            reads every source in its document (the control: the later one has seen what it is to predict);
            ``isolated_first_only`` only pairs an earlier source with a later target, so that nothing but the target is
            read twice.
        target_span_ids: numbers of the spans that can be targets (0 of a fact is the name); none: all of them.
    """

    source_context: SourceContext = "isolated"
    target_span_ids: tuple[int, ...] = ()

    def __post_init__(self):
        if any(number < 0 for number in self.target_span_ids):
            raise ValueError(
                f"annotated: target_span_ids {list(self.target_span_ids)} are numbers of spans; the first one is 0"
            )

    def mark(self, documents: list[Document]) -> list[Document]:
        """The documents, with `target_span_ids`."""
        if not self.target_span_ids:
            return documents
        most = max((len(document.spans) for document in documents), default=0)
        if max(self.target_span_ids) >= most:
            raise ValueError(
                f"annotated: target_span_ids {list(self.target_span_ids)}, but there are {most} spans; count from 0"
            )
        return [replace(document, target_span_ids=self.target_span_ids) for document in documents]


@dataclass(frozen=True)
class Chunks:
    """Spans without annotation: two random runs of words of each document that do not share a word.

    Checked:   tests/data/text/test_span_pairs.py - disjoint, lengths, the same in all processes.

    Args:
        shortest, longest: words in a run.
        seed: another seed draws other runs.
        source_context: as in `Annotated`.
    """

    shortest: int = 2
    longest: int = 5
    seed: int = 0
    source_context: SourceContext = "isolated"

    def __post_init__(self):
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(
                f"chunks: shortest {self.shortest} and longest {self.longest}; set 1 <= shortest <= longest"
            )

    def mark(self, documents: list[Document]) -> list[Document]:
        """The documents with these spans instead of their own; one with too few words gets none."""
        rng = random.Random(f"chunks/{self.seed}")
        return [
            replace(document, spans=self._draw(document.text, rng), related=None, edits=()) for document in documents
        ]

    def _draw(self, text: str, rng: random.Random) -> list[Span]:
        words = [match.span() for match in re.finditer(r"\S+", text)]
        if len(words) < 2 * self.shortest:
            return []
        lengths = [rng.randint(self.shortest, min(self.longest, len(words) // 2)) for _ in range(2)]
        spare = sorted(rng.randint(0, len(words) - sum(lengths)) for _ in range(2))
        starts = spare[0], spare[1] + lengths[0]
        return [(words[start][0], words[start + n - 1][1]) for start, n in zip(starts, lengths, strict=True)]


SpanPairs = Annotated | Chunks | Phrases
