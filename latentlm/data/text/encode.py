"""From a document to token ids, and for each ordered pair of its spans where to read one and what the other is."""

import itertools
import logging
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from latentlm.data.text.chat_spans import render, rendered_spans

logger = logging.getLogger(__name__)

SETS = ("source_last", "target_ids", "target_last", "before_target", "target_positions")
Tokenizer = Any  # transformers' PreTrainedTokenizerBase: too slow to import for checking a recipe


def encode(
    document: dict,
    tokenizer: Tokenizer,
    max_length: int,
    sets: Sequence[str] = (),
    read: Literal["alone", "in_place", "first"] = "alone",
    places: bool = False,
) -> dict:
    """Ids and labels of the whole text with eos, and the ordered pairs (source span, other span) if `sets` needs them.

    A document with ``messages`` is rendered by the tokenizer's chat template, which brings its own special tokens;
    its spans are offsets into the messages, one below the other. All of its spans are related to one another, or those
    that it lists under ``related``, as pairs of their numbers; with ``named`` the other span is one of these numbers.

    A source that ends before the other starts is read in place: `end` is its last token and `alone` is empty.
    Otherwise it could see the other span, so it is read as a document of its own: `end` is -1 and `alone` its ids.
    Where a span is read alone it loses from its beginning what the document lists under ``cuts``, characters for each
    span, and goes on with what it lists under ``tails``; behind that comes what it lists under ``strangers`` for the
    other span, cut to one token less than that has: `strange` says how many tokens these are.
    With `read` ``in_place`` it is read where it stands even then; with ``first`` the pair is left out.
    `other` holds the ids of the other span as they continue a running text, `other_alone` those of it as a document;
    `before` is the last token before the other one where the source ends earlier, else -1.

    Returns:
        ``input_ids``, ``labels`` (-100 at the first position), ``pairs`` and ``dropped``, the number of pairs left out
        because `max_length` cuts one of their spans; with `places` also ``places``, ``[first, end)`` of the tokens of
        each span, the one that ends last behind; empty where there is none or `max_length` cuts one; and ``answer``,
        that last one, or [0, 0) if there is none or the document has ``named`` and it is not among them.
    """
    _check(tokenizer, max_length, sets, places)
    chat, eos = "messages" in document, tokenizer.eos_token_id
    text = render(document["messages"], tokenizer) if chat else document["text"]
    offsets = bool(sets or places)
    encoding = tokenizer(text, add_special_tokens=not chat, return_offsets_mapping=offsets, verbose=False)
    ids = list(encoding["input_ids"])
    if not ids:
        raise ValueError(f"the document {text!r} has no tokens; leave empty texts out")
    if eos not in ids[-2 if chat else -1 :]:  # a chat template ends a turn with eos, often before a line break
        ids.append(eos)
    ids = ids[:max_length]
    example = {"input_ids": ids, "labels": [-100, *ids[1:]], "pairs": [], "dropped": 0}
    if not offsets:
        return example
    spans = {number: (start, end) for number, (start, end) in enumerate(document.get("spans", []))}
    if chat and spans:
        spans = rendered_spans([*spans.values()], document["messages"], text, tokenizer)
    found = {number: _place(text, span, encoding["offset_mapping"]) for number, span in spans.items()}
    if places:
        ordered = sorted(found, key=lambda number: found[number][1])
        whole = bool(ordered) and found[ordered[-1]][1] < len(ids)
        example["places"] = [[found[n][0], found[n][1] + 1] for n in ordered] if whole else []
        example["answer"] = example["places"][-1] if whole and ordered[-1] in document.get("named", found) else [0, 0]
    if not sets:
        return example
    related = {tuple(sorted(pair)) for pair in document.get("related", itertools.combinations(spans, 2))}
    cuts = document.get("cuts", [0] * len(document.get("spans", [])))
    tails, strangers = (document.get(key, [""] * len(cuts)) for key in ("tails", "strangers"))
    for i, source in spans.items():
        for j, other in spans.items():
            if (min(i, j), max(i, j)) not in related or j not in document.get("named", spans):
                continue
            earlier = source[1] <= other[0] and found[i][1] < found[j][0]
            in_place = read == "in_place" or earlier
            if read == "first" and not in_place:
                continue
            named = _continued(text[slice(*other)], tokenizer)
            alone = [] if in_place else _alone(text[source[0] + cuts[i] : source[1]] + tails[i], tokenizer)
            strange = _continued(strangers[j], tokenizer)[: len(named) - 1] if strangers[j] and not in_place else []
            if max(found[i][1], found[j][1]) >= len(ids) or len(alone) + len(strange) > max_length:
                example["dropped"] += 1
                continue
            pair = {"end": found[i][1] if in_place else -1, "alone": alone + strange, "strange": len(strange)}
            pair["before"] = found[j][0] - 1 if earlier else -1
            pair["other"] = named
            pair["other_alone"] = _alone(text[slice(*other)], tokenizer) if "target_last" in sets else []
            example["pairs"].append(pair)
    return example


def encode_dataset(
    documents: Iterable[dict],
    tokenizer: Tokenizer,
    max_length: int,
    sets: Sequence[str] = (),
    read: Literal["alone", "in_place", "first"] = "alone",
    places: bool = False,
) -> Any:
    """All documents encoded: a `datasets.Dataset` of ``input_ids``, ``labels``, ``pairs``; if wanted also of places."""
    from datasets import Dataset, Features, List, Value

    examples = [encode(document, tokenizer, max_length, sets, read, places) for document in documents]
    if not examples:
        raise ValueError("documents: there are none; check the data part's selection")
    dropped = sum(example.pop("dropped") for example in examples)
    if sets and not any(example["pairs"] for example in examples):
        if dropped:
            raise ValueError(f"max_length: {max_length} cuts a span of every document; raise it")
        raise ValueError(f"documents: none has two spans, but {', '.join(sets)} need them; give spans or other data")
    if dropped:
        logger.warning("%d pairs of spans left out because max_length=%d cuts them", dropped, max_length)
    ids = List(Value("int64"))
    one = Value("int64")
    pair = {"end": one, "alone": ids, "strange": one, "before": one, "other": ids, "other_alone": ids}
    columns = {"input_ids": ids, "labels": ids, "pairs": List(pair)}
    columns |= {"places": List(ids), "answer": ids} if places else {}
    return Dataset.from_list(examples, features=Features(columns))


def _check(tokenizer: Tokenizer, max_length: int, sets: Sequence[str], places: bool) -> None:
    if max_length < 2:
        raise ValueError(f"max_length: {max_length} leaves nothing to predict; set it to 2 or more")
    if unknown := set(sets) - set(SETS):
        raise ValueError(f"sets: unknown {sorted(unknown)}; choose from {', '.join(SETS)}")
    if tokenizer.eos_token_id is None:
        raise ValueError("tokenizer: it has no eos token; set tokenizer.eos_token")
    if (sets or places) and not tokenizer.is_fast:
        raise ValueError("tokenizer: spans need character offsets; load it with use_fast=True")


def _place(text: str, span: tuple[int, int], offsets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    start, end = span
    if not 0 <= start < end <= len(text):
        raise ValueError(f"span [{start}, {end}] is not inside the document {text!r}; give 0 <= start < end <= length")
    tokens = [k for k, (low, high) in enumerate(offsets) if low < end and high > start]
    if not tokens:
        raise ValueError(f"span {text[start:end]!r} matches no token of the document {text!r}; check its offsets")
    return tokens[0], tokens[-1]


def _alone(text: str, tokenizer: Tokenizer) -> list[int]:
    ids = list(tokenizer(text, verbose=False)["input_ids"])
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


def _continued(text: str, tokenizer: Tokenizer) -> list[int]:
    # read behind another word: tokenizers differ in whether a space belongs to the word it precedes
    encoding = tokenizer(f"a {text}", add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [
        token for token, (_, high) in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True) if high > 1
    ]
