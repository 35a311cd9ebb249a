"""What happened to documents on their way to examples, in one line of bounded length for each reason."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from latentlm.data.text.examples import Example
from latentlm.data.text.units import NEEDS

LongDocuments = Literal["split", "truncate", "drop"]


class DocumentError(ValueError):
    """A document that cannot be encoded; the others can."""


@dataclass
class EncodingReport:
    """Counts of what was split or left out.

    Attributes:
        num_documents: usable ones.
        num_tokens: in all of them.
        num_long, longest: documents longer than `max_length`, and the tokens of the longest.
        num_pieces, kept_tokens: made of the long ones; tokens of them that are kept, each counted once.
        long_tokens: of the long ones.
        cut_pairs: pairs of spans of which `max_length` cuts one.
        overlaps: pairs of spans that overlap.
        unusable: documents that cannot be encoded, and why.
        num_spans: spans of the usable ones.
        units, cut_units: units of each grain that are kept, and those that `max_length` cuts.
        unlabelled: examples without a token to predict.
        in_words: spans that begin or end inside a word, as they do where offsets are not counted in characters.
    """

    num_documents: int = 0
    num_tokens: int = 0
    num_long: int = 0
    longest: int = 0
    num_pieces: int = 0
    kept_tokens: int = 0
    long_tokens: int = 0
    cut_pairs: int = 0
    overlaps: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    num_spans: int = 0
    in_words: list[str] = field(default_factory=list)
    units: dict[str, int] = field(default_factory=dict)
    cut_units: dict[str, int] = field(default_factory=dict)
    unlabelled: int = 0

    def add(self, length: int, max_length: int, pieces: Sequence[tuple[int, int]]) -> None:
        """Count a document of `length` tokens."""
        self.num_documents += 1
        self.num_tokens += length
        if length > max_length:
            self.num_long += 1
            self.longest = max(self.longest, length)
            self.num_pieces += len(pieces)
            self.long_tokens += length
            self.kept_tokens += max((stop for _, stop in pieces), default=0)

    def add_units(self, units: Mapping[str, int], examples: Sequence[Example]) -> None:
        """Count the units of a document, of which its examples hold the whole ones."""
        for grain, number in units.items():
            kept = [len(example.units[grain]) for example in examples]
            self.units[grain] = self.units.get(grain, 0) + sum(kept)
            self.cut_units[grain] = self.cut_units.get(grain, 0) + number - sum(kept)
        self.unlabelled += sum(all(label == -100 for label in example.labels) for example in examples)

    def check(self, examples: Sequence[Example], max_length: int, sets: Sequence[str]) -> None:
        """ValueError where nothing is left of what is needed."""
        if not examples and self.unusable:
            raise ValueError(f"documents: none can be used: {some(self.unusable)}")
        if not examples and self.num_long:
            raise ValueError(f"long_documents: all have more than max_length={max_length} tokens; split them")
        if not examples:
            raise ValueError("documents: there are none; check the data part's selection")
        if self.unlabelled == len(examples):
            raise ValueError(
                "loss_on: no token of any document is to be predicted; the data have no assistant turn or completion, "
                "or max_length cuts them off; use loss_on: all, or raise max_length"
            )
        for grain, number in self.units.items():
            if not number:
                cut = self.cut_units[grain]
                why = (
                    f"max_length={max_length} cuts all {cut}; raise it"
                    if cut
                    else (
                        f"they are marked by {NEEDS[grain]}" if grain in NEEDS else "use other data, or another grain"
                    )
                )
                raise ValueError(f"units: no document has a {grain}; {why}")
        if sets and not any(example.span_pairs for example in examples):
            need = ", ".join(sets)
            if self.cut_pairs:
                raise ValueError(f"max_length: {max_length} cuts a span of every document; raise it")
            if self.overlaps:
                raise ValueError(
                    f"documents: all spans overlap ({some(self.overlaps)}), and {need} need pairs that do not"
                )
            raise ValueError(f"documents: none has two spans, but {need} need them; give spans or other data")

    def lines(self, max_length: int, long_documents: LongDocuments) -> Iterator[str]:
        """One for each reason."""
        if self.num_long:
            lost = self.long_tokens - self.kept_tokens
            share = f"{lost} of {self.num_tokens} tokens ({100 * lost / self.num_tokens:.0f} %) are left out"
            what = {
                "split": f"split into {self.num_pieces} pieces",
                "truncate": f"truncated, {share}",
                "drop": f"dropped, {share}",
            }
            yield (
                f"{self.num_long} of {self.num_documents} documents have more than max_length={max_length} tokens "
                f"(up to {self.longest}): {what[long_documents]} (long_documents={long_documents})"
            )
        for grain, cut in self.cut_units.items():
            if cut:
                every = cut + self.units[grain]
                yield f"{cut} of {every} units '{grain}' left out because max_length={max_length} cuts them"
        if self.unlabelled:
            yield f"{self.unlabelled} examples have no token to predict (loss_on); they only serve latent terms"
        if self.cut_pairs:
            yield f"{self.cut_pairs} pairs of spans left out because max_length={max_length} cuts them"
        if self.overlaps:
            yield f"{len(self.overlaps)} pairs of overlapping spans left out: {some(self.overlaps)}"
        if len(self.in_words) > self.num_spans / 2:
            yield (
                f"{len(self.in_words)} of {self.num_spans} spans begin or end inside a word ({some(self.in_words)}); "
                "offsets are counted in characters, not in bytes or tokens"
            )
        if self.unusable:
            yield f"{len(self.unusable)} documents that cannot be used left out: {some(self.unusable)}"


def some(reasons: Sequence[str], count: int = 3, length: int = 160) -> str:
    """The first of them, each cut to a bounded length."""
    short = [reason if len(reason) <= length else f"{reason[:length]}..." for reason in reasons[:count]]
    return "; ".join(short) + ("; ..." if len(reasons) > count else "")
