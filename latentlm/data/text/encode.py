"""From a document to token ids, and for each ordered pair of its spans where the source is and what the target is."""

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from latentlm.data.documents import Document, Span
from latentlm.data.text.chat_spans import render, rendered_spans
from latentlm.data.text.chat_turns import (
    Turns,
    answers,
    chat_frame,
    special_tokens,
    template_mask,
    turn_units,
    written_turns,
)
from latentlm.data.text.encoding_report import DocumentError, EncodingReport, LongDocuments
from latentlm.data.text.examples import Example, SpanPair, as_dataset
from latentlm.data.text.units import Finder, TokenText, UnitSpan, find_units, inside, token_text

logger = logging.getLogger(__name__)

SETS = ("source_last", "target_ids", "target_last", "before_target", "target_positions")
LossOn = Literal["auto", "all", "assistant", "last_assistant", "completion"]
SourceContext = Literal["isolated", "in_context", "isolated_first_only"]
Tokenizer = Any  # transformers' PreTrainedTokenizerBase: too slow to import for checking a recipe


@dataclass(frozen=True)
class _Encoded:
    """A document's text and tokens, where its spans are in both, by their number, and its units.

    Attributes:
        labelled: which tokens are to be predicted.
    """

    document: Document
    text: str
    ids: list[int]
    labelled: list[bool]
    chars: dict[int, Span] = field(default_factory=dict)
    tokens: dict[int, tuple[int, int]] = field(default_factory=dict)  # first and last
    units: dict[str, list[UnitSpan]] = field(default_factory=dict)

    def inside(self, number: int, start: int, stop: int) -> bool:
        """Whether a span is in that piece of the tokens."""
        first, last = self.tokens[number]
        return start <= first and last < stop


@dataclass(frozen=True)
class Encoder:
    """How documents become examples.

    A conversation is written by the tokenizer's chat template, which brings its own special tokens. A source that ends
    before its target starts is read in the document. Otherwise it could see the target, so it is read as a sequence of
    its own, changed as the document's `edits` say. Overlapping spans are not paired.

    Args:
        tokenizer: with an eos token.
        max_length: most tokens of an example.
        sets: index sets that are read; without any, there are no pairs.
        source_context: ``in_context`` reads every source in the document; ``isolated_first_only`` leaves out pairs
            whose source could see the target.
        token_spans: also fill in `spans` and `answer`.
        long_documents: ``split`` cuts a longer document into pieces, each of which begins with the last token of the
            one before, so that every token is predicted once; ``truncate`` keeps its first tokens; ``drop`` none.
        loss_on: ``assistant``: the assistant's turns of conversations, each with the token that ends it;
            ``last_assistant``: the last of them; ``completion``: what follows a prompt; ``all``; ``auto``: assistant,
            completion or all, by what a document is.
        grains: how the units of each grain are found.
    """

    tokenizer: Tokenizer
    max_length: int
    sets: Sequence[str] = ()
    source_context: SourceContext = "isolated"
    token_spans: bool = False
    long_documents: LongDocuments = "split"
    loss_on: LossOn = "auto"
    grains: Mapping[str, Finder] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise ValueError(f"max_length: {self.max_length} leaves nothing to predict; set it to 2 or more")
        if unknown := set(self.sets) - set(SETS):
            raise ValueError(f"sets: unknown {sorted(unknown)}; choose from {', '.join(SETS)}")
        if self.tokenizer.eos_token_id is None:
            raise ValueError("tokenizer: it has no eos token; set tokenizer.eos_token")
        if (self.sets or self.token_spans) and not self.tokenizer.is_fast:
            raise ValueError("tokenizer: spans need character offsets; load it with use_fast=True")

    def __call__(self, document: Document, report: EncodingReport) -> list[Example]:
        """Its pieces; what is left out goes into the report.

        Raises:
            DocumentError: it has no tokens, or a span that is not in its text.
        """
        encoded = self._tokenize(document)
        labels = [token if said else -100 for token, said in zip(encoded.ids, encoded.labelled, strict=True)]
        report.num_spans += len(encoded.chars)
        report.in_words += [
            f"{_name(document)}: {_short(encoded.text[start:end])}"
            for start, end in encoded.chars.values()
            if _inside_word(encoded.text, start) or _inside_word(encoded.text, end)
        ]
        pieces = _pieces(len(encoded.ids), self.max_length, self.long_documents)
        report.add(len(encoded.ids), self.max_length, pieces)
        pairs = list(self._pairs(encoded, report)) if self.sets else []
        examples = []
        for start, stop in pieces:
            example = Example(
                encoded.ids[start:stop], [-100, *labels[start + 1 : stop]], units=_rows(encoded, start, stop)
            )
            example = _with_token_spans(example, encoded, start, stop) if self.token_spans else example
            own = [
                pair.moved(-start)
                for s, t, pair in pairs
                if encoded.inside(s, start, stop) and encoded.inside(t, start, stop)
            ]
            examples.append(replace(example, span_pairs=own))
        report.cut_pairs += len(pairs) - sum(len(example.span_pairs) for example in examples)
        report.add_units({grain: len(units) for grain, units in encoded.units.items()}, examples)
        return examples

    def _tokenize(self, document: Document) -> _Encoded:
        tokenizer, chat = self.tokenizer, document.messages is not None
        turned = chat or "turn" in document.units
        with_spans, with_turns = bool(self.sets or self.token_spans), turned and (self.loss_on != "all" or self.grains)
        with_offsets = bool(with_spans or with_turns or self.grains)
        if with_offsets and not tokenizer.is_fast:
            raise ValueError(
                "tokenizer: units and loss_on need character offsets; load it with use_fast=True, or loss_on: all"
            )
        if chat and tokenizer.chat_template is None:
            raise ValueError("tokenizer: it has no chat template for messages; set tokenizer.chat_template")
        try:
            text = render(document.messages, tokenizer) if document.messages is not None else document.text
            encoding = tokenizer(text, add_special_tokens=not chat, return_offsets_mapping=with_offsets, verbose=False)
            ids = list(encoding["input_ids"])
            if not ids:
                raise DocumentError(f"{_short(text)} has no tokens")
            offsets = list(encoding["offset_mapping"]) if with_offsets else []
            eos = tokenizer.eos_token_id
            # a chat template ends a turn with a special token, often before a line break
            ended = any(special_tokens(ids[-2:], tokenizer)) if chat else ids[-1] == eos
            if not ended:
                ids.append(eos)
                offsets += [(len(text), len(text))] if with_offsets else []
            chars = {}
            if with_spans or "span" in self.grains:
                chars = dict(enumerate(document.spans))
                if document.messages is not None and chars:
                    chars = rendered_spans(document.spans, document.messages, text, tokenizer)
            turns = _turns(document, text, tokenizer) if with_turns else Turns()
        except DocumentError:
            raise
        except ValueError as error:
            raise DocumentError(str(error)) from error
        written = TokenText(text, offsets)
        tokens = {number: _tokens_of(text, span, offsets) for number, span in chars.items()}
        labelled = self._labelled(document, ids, written, turns)
        found = _Encoded(document, text, ids, labelled, chars, tokens)
        if not self.grains:
            return found
        marked = {grain: written.units([(s, e) for s, e, _ in units]) for grain, units in document.units.items()}
        marked["span"] = [UnitSpan(first, last + 1) for first, last in sorted(tokens.values())]
        if turned:
            marked["turn"] = turn_units(written, turns)
        said = token_text(ids, tokenizer, marked)
        if not (_keeps(said, written, marked["turn"]) if chat else said.text == text):
            # in what a tokenizer without line breaks says there would be no paragraphs
            special = special_tokens(ids, tokenizer)
            plain = [(low, low) if special[k] else (low, high) for k, (low, high) in enumerate(offsets)]
            said = TokenText(text, plain, marked)
        return replace(found, units=find_units(said, self.grains))

    def _labelled(self, document: Document, ids: list[int], written: TokenText, turns: Turns) -> list[bool]:
        """Which tokens are to be predicted."""
        kind = "assistant" if document.messages is not None else "completion" if "turn" in document.units else "all"
        wanted = kind if self.loss_on == "auto" else self.loss_on.removeprefix("last_")
        if wanted == kind != "all":
            return self._answers(document, ids, written, turns)
        return [wanted == "all"] * len(ids)

    def _answers(self, document: Document, ids: list[int], written: TokenText, turns: Turns) -> list[bool]:
        """The tokens of the assistant's turns, or of the completion."""
        special, last = special_tokens(ids, self.tokenizer), self.loss_on == "last_assistant"
        frame = None
        if document.messages is not None:
            frame = chat_frame(self.tokenizer)
            mask = template_mask(document.messages, ids, self.tokenizer)
            if mask is not None:
                return _last_run(mask) if last else mask
        said = list(answers(written, turns, frame, special))
        chosen = {token for tokens in (said[-1:] if last else said) for token in tokens}
        labelled = [token in chosen for token in range(len(ids))]
        end = len(written.text)
        appended = written.offsets[-1] == (end, end)  # eos, where nothing else ends the text
        if turns and turns[-1][1] == "assistant" and (appended or document.messages is None):
            labelled[-1] = True
        return labelled

    def _pairs(self, encoded: _Encoded, report: EncodingReport) -> Iterator[tuple[int, int, SpanPair]]:
        """Numbers of source and target, and the pair in the whole document."""
        for source, target in _related(encoded):
            (start, end), (other_start, other_end) = encoded.chars[source], encoded.chars[target]
            if start < other_end and other_start < end:
                report.overlaps.append(f"{_name(encoded.document)}: [{start}, {end}] and [{other_start}, {other_end}]")
                continue
            pair = _span_pair(encoded, source, target, self.tokenizer, self.source_context, "target_last" in self.sets)
            if pair is None:
                continue
            if len(pair.isolated_source) > self.max_length:
                report.cut_pairs += 1
            else:
                yield source, target, pair


def encode(
    document: Document, tokenizer: Tokenizer, max_length: int, sets: Sequence[str] = (), **options: Any
) -> Example:
    """One document that is not longer than `max_length`, or its beginning; options are those of `Encoder`."""
    encoder = Encoder(tokenizer, max_length, sets, long_documents="truncate", **options)
    return encoder(document, EncodingReport())[0]


def encode_dataset(
    documents: Iterable[Document], tokenizer: Tokenizer, max_length: int, sets: Sequence[str] = (), **options: Any
) -> Any:
    """All documents encoded: a `datasets.Dataset` with the fields of `Example` that something reads.

    Documents that cannot be used are left out. What is split or left out is logged, one line for each reason.

    Args:
        documents: at least one.
        tokenizer: of `Encoder`, as are the others.
        max_length: most tokens of an example.
        sets: index sets that are read.
        **options: the rest of `Encoder`.
    """
    encoder, report = Encoder(tokenizer, max_length, sets, **options), EncodingReport()
    examples: list[Example] = []
    for number, document in enumerate(documents):
        try:
            examples += encoder(document, report)
        except DocumentError as error:
            report.unusable.append(f"{document.origin or f'document {number}'}: {error}")
    report.check(examples, max_length, sets)
    for line in report.lines(max_length, encoder.long_documents):
        logger.warning(line)
    return as_dataset(examples, span_pairs=bool(sets), spans=encoder.token_spans, grains=tuple(encoder.grains))


def _turns(document: Document, text: str, tokenizer: Tokenizer) -> Turns:
    """Where each turn's content is in the text, and whose it is."""
    if document.messages is not None:
        return written_turns(document.messages, text, tokenizer)
    return [((start, end), role) for start, end, role in document.units.get("turn", ())]


def _last_run(mask: list[bool]) -> list[bool]:
    """Of several runs of True the last one."""
    stop = max((k + 1 for k, said in enumerate(mask) if said), default=0)
    first = stop
    while first and mask[first - 1]:
        first -= 1
    return [first <= k < stop for k in range(len(mask))]


def _pieces(length: int, max_length: int, long_documents: LongDocuments) -> list[tuple[int, int]]:
    """``[start, stop)`` of each piece of so many tokens."""
    if length <= max_length:
        return [(0, length)]
    if long_documents == "split":
        return [(start, min(start + max_length, length)) for start in range(0, length - 1, max_length - 1)]
    return [(0, max_length)] if long_documents == "truncate" else []


def _rows(encoded: _Encoded, start: int, stop: int) -> dict[str, list[list[int]]]:
    """The units that are whole in a piece, as an example has them."""
    return {
        grain: [[unit.first, unit.stop, unit.role] for unit in inside(units, start, stop)]
        for grain, units in encoded.units.items()
    }


def _with_token_spans(example: Example, encoded: _Encoded, start: int, stop: int) -> Example:
    """With the spans that are whole in this piece."""
    ordered = sorted(encoded.tokens, key=lambda number: encoded.tokens[number][1])
    spans = {
        number: (encoded.tokens[number][0] - start, encoded.tokens[number][1] + 1 - start)
        for number in ordered
        if encoded.inside(number, start, stop)
    }
    if not spans:
        return example
    targets = encoded.document.target_span_ids
    is_target = targets is None or ordered[-1] in targets
    answer = spans[ordered[-1]] if is_target and ordered[-1] in spans else (0, 0)
    return replace(example, spans=list(spans.values()), answer=answer)


def _related(encoded: _Encoded) -> Iterator[tuple[int, int]]:
    """Numbers of source and target of every pair."""
    document, numbers = encoded.document, encoded.chars
    pairs = itertools.combinations(numbers, 2) if document.related is None else document.related
    related = {tuple(sorted(pair)) for pair in pairs}
    targets = numbers if document.target_span_ids is None else document.target_span_ids
    for source, target in itertools.product(numbers, numbers):
        if (min(source, target), max(source, target)) in related and target in targets:
            yield source, target


def _span_pair(
    encoded: _Encoded,
    source: int,
    target: int,
    tokenizer: Tokenizer,
    source_context: SourceContext,
    with_isolated_target: bool,
) -> SpanPair | None:
    """The pair, or None where `source_context` leaves it out."""
    document, text = encoded.document, encoded.text
    (source_start, source_end), (target_start, target_end) = encoded.chars[source], encoded.chars[target]
    (_, source_last), (target_first, _) = encoded.tokens[source], encoded.tokens[target]
    target_text = text[target_start:target_end]
    target_ids = _continued(target_text, tokenizer)
    isolated_target = _isolated(target_text, tokenizer) if with_isolated_target else []
    source_first = source_end <= target_start and source_last < target_first
    if source_first or source_context == "in_context":
        before = target_first - 1 if source_first else -1
        due = [before + k for k in range(len(target_ids))] if before >= 0 else []
        return SpanPair(source_last, target_ids, [], before, due, isolated_target)
    if source_context == "isolated_first_only":
        return None
    edit, decoy = document.edit(source), document.edit(target).decoy
    read = _isolated(text[source_start + edit.skip : source_end] + edit.suffix, tokenizer)
    # the last token of the target is due after the last one of the decoy, so that is one token shorter
    wrong = _continued(decoy, tokenizer)[: len(target_ids) - 1] if decoy else []
    last = len(read) - 1
    due = [last + k for k in range(len(wrong) + 1)]
    return SpanPair(last, target_ids, read + wrong, -1, due, isolated_target)


def _keeps(said: TokenText, written: TokenText, units: Iterable[UnitSpan]) -> bool:
    """Whether these tokens still say what was written, around which a template may write special tokens."""
    texts = ([each.part(unit.first, unit.stop).text.strip() for each in (said, written)] for unit in units)
    return all(one == other for one, other in texts)


def _tokens_of(text: str, span: Span, offsets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """First and last token of a span."""
    start, end = span
    if not 0 <= start < end <= len(text):
        raise DocumentError(
            f"span [{start}, {end}] is not inside {_short(text)} of {len(text)} characters; "
            "give 0 <= start < end <= length, counted in characters"
        )
    tokens = [k for k, (low, high) in enumerate(offsets) if low < end and high > start]
    if not tokens:
        raise DocumentError(f"span [{start}, {end}] {_short(text[start:end])} matches no token; check its offsets")
    return tokens[0], tokens[-1]


def _inside_word(text: str, offset: int) -> bool:
    """Whether it is between two letters or digits, in a script that puts blanks between words."""
    around = text[offset - 1 : offset + 1] if offset else ""
    return len(around) == 2 and around.isascii() and around.isalnum()


def _name(document: Document) -> str:
    return document.origin or _short(document.text)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _isolated(text: str, tokenizer: Tokenizer) -> list[int]:
    ids = list(tokenizer(text, verbose=False)["input_ids"])
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


def _continued(text: str, tokenizer: Tokenizer) -> list[int]:
    # encoded after another word: tokenizers differ in whether a space belongs to the word it precedes
    encoding = tokenizer(f"a {text}", add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [
        token for token, (_, high) in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True) if high > 1
    ]
