"""What every forward pass of an evaluation shares: batches, padding, the mode of the network, and what goes wrong."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")
NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")  # of the allocators of CPU, GPU and MPS


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout and gradients; the model is handed back in the mode it came in."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


@contextmanager
def in_memory(key: str, rows: int, tokens: int, fix: str = "lower it") -> Iterator[None]:
    """ValueError in one line under `key` where a batch does not fit."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(t in str(error).lower() for t in NO_MEMORY):
            raise ValueError(f"{key}: {rows} rows of {tokens} tokens do not fit in memory; {fix}") from None
        raise


def nan_error(prompt: str) -> ValueError:
    """Of logits after a text."""
    return ValueError(
        f"model: the logits after {prompt[-60:]!r} are NaN: the weights have diverged, nothing can be scored"
    )


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Text of tokens, special ones included."""
    text = tokenizer.decode(list(ids))
    return text if isinstance(text, str) else "".join(text)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """What fills gaps; it is never read, as it is masked."""
    known = [i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if isinstance(i, int)]
    return known[0] if known else 0


def pad(rows: Sequence[Sequence[int]], fill: int, device: torch.device, *, left: bool) -> tuple[Tensor, Tensor]:
    """Ids and mask ``[b t]`` of rows of different lengths."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), fill)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        filled = slice(width - len(row), width) if left else slice(0, len(row))
        ids[number, filled] = torch.tensor(row, dtype=torch.long)
        mask[number, filled] = 1
    return ids.to(device), mask.to(device)


def chunks(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Pieces of that size, the last one smaller."""
    return (rows[i : i + size] for i in range(0, len(rows), size))


def progress(batches: Iterable[T], label: str, total: int) -> Iterable[T]:
    """A bar, where somebody looks."""
    shown = sys.stderr.isatty()
    return track(batches, label, total, transient=True, console=Console(stderr=True), disable=not shown)
