"""Next-token loss of labelled tokens, row by row, in nats.

Letters: ``b`` rows of a batch, ``t`` tokens.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from latentlm_evals.models.forward import decoded, evaluating, in_memory, nan_error, pad, pad_id, progress

IGNORE = -100
MOST_LOGITS = 2**28  # of one pass, 1 GiB in float32; more rows at once are hardly faster


@dataclass(frozen=True)
class Labelled:
    """A row of tokens.

    Attributes:
        ids: what is read.
        labels: the same where the token is predicted, else -100; the first is never predicted.
    """

    ids: Sequence[int]
    labels: Sequence[int]

    @property
    def count(self) -> int:
        """Predicted tokens."""
        return sum(label != IGNORE for label in self.labels[1:])


def token_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Labelled],
    *,
    most_rows: int = 64,
    label: str = "loss",
    key: str = "batch_size",
    fix: str = "lower it",
) -> list[float]:
    """Summed ``-log P(token | tokens before it)`` of every row's predicted tokens, added up in float64.

    Rows are sorted by length and padded on the right; logits are made only where something is predicted.

    Checked:   tests/evals/answers/test_losses.py - each row alone, and in windows.

    Args:
        model: a causal language model.
        tokenizer: of the model.
        rows: in any order.
        most_rows: of a pass; less where the logits would be too many.
        label: of the progress bar.
        key: named where a batch does not fit in memory.
        fix: what to do about it.
    """
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i), reverse=True)
    trims = "logits_to_keep" in inspect.signature(model.forward).parameters
    head = model.get_output_embeddings()
    vocabulary = len(tokenizer) if head is None else head.weight.shape[0]
    batches = list(_batches(rows, order, most_rows, vocabulary))
    sums = [0.0] * len(rows)
    for numbers in progress(batches, label, len(batches)):
        ids, mask = pad([rows[i].ids for i in numbers], pad_id(tokenizer), model.device, left=False)
        labels, _ = pad([rows[i].labels for i in numbers], IGNORE, model.device, left=False)
        due = (labels[:, 1:] != IGNORE).any(0).nonzero()[:, 0]  # positions after which something is predicted
        if not len(due):
            continue
        with in_memory(key, len(numbers), ids.shape[1], fix), evaluating(model):
            extra = {"logits_to_keep": due} if trims else {}
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **extra).logits
            logits = logits if trims else logits[:, due]
            losses = F.cross_entropy(
                logits.flatten(0, 1).float(), labels[:, due + 1].flatten(), reduction="none", ignore_index=IGNORE
            ).view(len(numbers), -1)
        for i, value in zip(numbers, losses.sum(1, dtype=torch.float64).tolist(), strict=True):
            if value != value:
                raise nan_error(decoded(tokenizer, rows[i].ids))
            sums[i] = value
    return sums


def _batches(rows: Sequence[Labelled], order: Sequence[int], most_rows: int, vocabulary: int) -> Iterator[list[int]]:
    """Longest rows first, as many as the logits of a pass allow."""
    batch: list[int] = []
    for i in order:
        width = len(rows[batch[0]].ids) if batch else 0
        if batch and (len(batch) == most_rows or (len(batch) + 1) * width * vocabulary > MOST_LOGITS):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def windows(row: Labelled, size: int) -> list[Labelled]:
    """A row as pieces of at most `size` tokens that overlap by at least half, each token predicted in one of them.

    >>> [piece.ids for piece in windows(Labelled([0, 1, 2, 3, 4, 5], [-100, 1, 2, 3, 4, 5]), 4)]
    [[0, 1, 2, 3], [2, 3, 4, 5]]
    """
    pieces, done = [], 0
    while done < len(row.ids):
        stop = min(done + (size - size // 2 if done else size), len(row.ids))
        start = max(0, stop - size)
        labels = [IGNORE] * (done - start) + list(row.labels[done:stop])
        pieces.append(Labelled(list(row.ids[start:stop]), labels))
        done = stop
    return pieces
