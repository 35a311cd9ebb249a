"""The loss of held-out texts: every token once, whatever the context of the model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from latentlm.data import Corpus, encode
from latentlm.data.text.encoding_report import DocumentError, some
from latentlm.data.text.token_bytes import token_bytes
from latentlm.result import Estimate, Task
from latentlm_evals.answers.options import Options
from latentlm_evals.answers.prompts import most_positions
from latentlm_evals.answers.rows import corpus_of
from latentlm_evals.models.losses import Labelled, token_losses, windows
from latentlm_evals.statistics.bootstrap import ratio

VERSION = 1
MOST_WINDOW = 4096  # where nobody says otherwise: attention costs the square of it
WHOLE = 2**31  # tokens: no document is cut before its windows


@dataclass(frozen=True)
class Texts:
    """Documents as tokens.

    Attributes:
        rows: with the labels that training would give them.
        sizes: bytes of the labelled tokens; None where the tokenizer does not tell them.
        skipped: documents without a label, and why.
    """

    rows: Sequence[Labelled]
    sizes: Sequence[int] | None
    skipped: Sequence[str]


def read_texts(source: str | Corpus, tokenizer: PreTrainedTokenizerBase, limit: int | None) -> Texts:
    """ValueError where there is nothing to predict."""
    try:
        documents = corpus_of(source, limit).documents()
    except ValueError as error:
        raise ValueError(f"text{str(error).removeprefix('source')}") from error
    rows, skipped = [], []
    for number, document in enumerate(documents):
        origin = document.origin or f"document {number}"
        try:
            example = encode(document, tokenizer, WHOLE)
        except DocumentError as error:
            skipped.append(f"{origin}: {error}")
            continue
        row = Labelled(list(example.input_ids), list(example.labels))
        if row.count:
            rows.append(row)
        else:
            skipped.append(f"{origin}: has nothing to predict")
    if not rows:
        raise ValueError(f"text: none of {len(documents)} documents can be used: {some(skipped)}")
    sizes = token_bytes(tokenizer)
    counts = None if sizes is None else [sizes.count(row.ids, row.labels) for row in rows]
    known = None if counts is None or None in counts else [count for count in counts if count is not None]
    return Texts(rows, known, skipped)


def text_task(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Texts, options: Options
) -> tuple[Task, list[str]]:
    """Loss per token and per byte, with intervals over documents; and what to know of them."""
    limit = most_positions(model.config)
    if options.window is not None and limit is not None and options.window > limit:
        raise ValueError(f"window: {options.window} is more than the {limit} positions of the model; lower it")
    size = options.window or min(limit or MOST_WINDOW, MOST_WINDOW)
    pieces = [windows(row, size) for row in texts.rows]
    every = [piece for own in pieces for piece in own]
    losses = token_losses(model, tokenizer, every, most_rows=options.batch_size, label="text", key="window")
    edges = [0, *accumulate(map(len, pieces))]
    sums = [sum(losses[low:high]) for low, high in pairwise(edges)]
    counts, documents = [row.count for row in texts.rows], range(len(texts.rows))
    bits = [loss / math.log(2) for loss in sums]
    scores: dict[str, Estimate] = {
        "nats_per_token": ratio(sums, counts, documents, seed=options.seed, higher_is_better=False),
        "bits_per_token": ratio(bits, counts, documents, seed=options.seed, higher_is_better=False),
    }
    notes = []
    if texts.sizes is not None and sum(texts.sizes):
        scores["bits_per_byte"] = ratio(bits, texts.sizes, documents, seed=options.seed, higher_is_better=False)
    else:
        notes.append("no_bytes: the tokenizer does not keep every byte of a text, so there are no bits per byte")
    if texts.skipped:
        notes.append(f"skipped_text: {len(texts.skipped)} documents: {some(texts.skipped)}")
    long = sum(len(own) > 1 for own in pieces)
    sizes = {"original": len(counts) + len(texts.skipped), "effective": len(counts), "tokens": sum(counts)}
    sizes |= {"bytes": sum(texts.sizes)} if texts.sizes is not None else {}
    return Task(scores, "text", {**sizes, "window": size, "longer": long}, VERSION), notes
