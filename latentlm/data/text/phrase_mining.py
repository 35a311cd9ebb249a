"""Spans without annotation: phrases of a text, where two of them occur together in several documents."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from latentlm.data.documents import Document, Span
from latentlm.data.text.encode import SourceContext

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
_FIRST = 0x10000  # characters beyond the basic plane: a million of them, and none is a space or a mark
_ENDS = 4
_MOST = 0x10FFFF - _FIRST - _ENDS


@dataclass(frozen=True)
class Phrases:
    """The phrases of a unigram model that recur together: a name and what is said of it, found from the text alone.

    Equation:  p(text) = prod p(phrase), each a run of words of one clause, fitted by EM and pruned to `num` phrases;
               the most probable division of each document is taken. Of its phrases of `shortest` words or more those
               are marked that occur in `together` documents or more with another one of the document.
    Errors:    no two phrases share that many documents.
    Traps:     a phrase of every tenth document ("was known as") is said of everything, so names nothing: `max_share`.
    Checked:   tests/data/text/test_phrase_mining.py - finds the marked spans of invented facts, offsets, same in all
               processes.
    Source:    Kudo, 2018 (arXiv 1804.10959), on words instead of characters, by the trainer of `tokenizers`.

    Args:
        num: phrases of two words or more that the model may have: too few leave rare ones out, too many include the
            words around them. Training says how many documents have spans; the best number leaves the fewest without.
        shortest, longest: words in a phrase that is marked, and in any phrase; 1 marks single words too.
        together: documents in which two phrases are found to count as related.
        max_share: share of the documents above which a phrase is part of the language.
        source_context: as in `Annotated`.
    """

    num: int = 3000
    shortest: int = 2
    longest: int = 4
    together: int = 3
    max_share: float = 0.01
    source_context: SourceContext = "isolated"

    def __post_init__(self):
        for name, least in (("num", 1), ("shortest", 1), ("longest", max(2, self.shortest)), ("together", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"phrases: {name} is {getattr(self, name)}; set it to {least} or more")
        if not 0 < self.max_share <= 1:
            raise ValueError(f"phrases: max_share is {self.max_share}; set it above 0 and up to 1")

    def mark(self, documents: list[Document]) -> list[Document]:
        """The documents with `spans` of the phrases in them that are related, and which of them are (`related`)."""
        clauses = [list(_clauses(document.text)) for document in documents]
        phrases = self._divide(clauses)
        often = Counter(phrase for found in phrases for phrase in {phrase for phrase, _ in found})
        limit = self.max_share * len(documents)
        phrases = [[(phrase, place) for phrase, place in found if often[phrase] <= limit] for found in phrases]
        pairs = Counter(pair for found in phrases for pair in _pairs(found))
        marked = [self._marked(*each, pairs) for each in zip(documents, phrases, strict=True)]
        if not any(document.spans for document in marked):
            raise ValueError(
                f"phrases: no two of them share {self.together} documents; raise data.span_pairs.num or lower together"
            )
        return marked

    def _marked(self, document: Document, found: list[tuple[str, Span]], pairs: Counter[tuple[str, str]]) -> Document:
        often = [
            (i, j)
            for (i, (one, _)), (j, (other, _)) in itertools.combinations(enumerate(found), 2)
            if pairs[_pair(one, other)] >= self.together
        ]
        kept = sorted({number for pair in often for number in pair})
        spans = [found[number][1] for number in kept]
        related = [(kept.index(i), kept.index(j)) for i, j in often]
        return replace(document, spans=spans, related=related, edits=())

    def _divide(self, clauses: list[list[list[tuple[str, Span]]]]) -> list[list[tuple[str, Span]]]:
        """Phrases of `shortest` words or more, with their offsets in the text."""
        from tokenizers import Tokenizer, models, trainers

        words = Counter(word for document in clauses for clause in document for word, _ in clause)
        if len(words) > _MOST:
            raise ValueError(
                f"phrases: {len(words)} different words; {_MOST} can be distinguished, give fewer documents"
            )
        as_char = {word: chr(_FIRST + k) for k, word in enumerate(words)}
        texts = [["".join(as_char[word] for word, _ in clause) for clause in document] for document in clauses]
        model = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=len(words) + _ENDS + 1 + self.num,
            max_piece_length=self.longest,
            special_tokens=["?"],
            unk_token="?",
            show_progress=False,
        )
        # for the trainer a phrase is what different words follow, and the ends of all clauses would be one word
        ends = itertools.cycle(chr(_FIRST + len(words) + k) for k in range(_ENDS))
        model.train_from_iterator((line + next(ends) for line in itertools.chain.from_iterable(texts)), trainer)
        divided = []
        for document, lines in zip(clauses, texts, strict=True):
            found = []
            for clause, encoding in zip(document, model.encode_batch(lines), strict=True):
                for phrase, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True):
                    if end - start >= self.shortest:
                        found.append((phrase, (clause[start][1][0], clause[end - 1][1][1])))
            divided.append(found)
        return divided


def _clauses(text: str) -> Iterator[list[tuple[str, Span]]]:
    """Runs of words with nothing but space between them: a phrase does not reach over a mark."""
    clause: list[tuple[str, Span]] = []
    for match in _WORD.finditer(text):
        if clause and text[clause[-1][1][1] : match.start()].strip():
            yield clause
            clause = []
        clause.append((match.group().lower(), match.span()))
    if clause:
        yield clause


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


def _pairs(found: list[tuple[str, Span]]) -> set[tuple[str, str]]:
    return {_pair(*both) for both in itertools.combinations({phrase for phrase, _ in found}, 2)}
