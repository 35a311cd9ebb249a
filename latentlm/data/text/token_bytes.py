"""How many bytes of text tokens stand for: what turns a loss per token into bits per byte."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Tokenizer = Any  # transformers' PreTrainedTokenizerBase: too slow to import for checking a recipe
IGNORE = -100
_BLANK = "\u2581"  # a blank, as SentencePiece writes it
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True)
class TokenBytes:
    """Bytes of UTF-8 that each token stands for; a special token stands for none.

    Checked:   tests/data/text/test_token_bytes.py - the bytes of the text itself, by tokenizers of both families.

    Attributes:
        lengths: by id; None for the unknown token.
        special: ids that stand for no text.
        blank_first: ids that begin with a blank which the tokenizer itself has put before the first word.
    """

    lengths: Sequence[int | None]
    special: frozenset[int]
    blank_first: frozenset[int]

    def count(self, ids: Sequence[int], labels: Sequence[int]) -> int | None:
        """Bytes of the labelled tokens of a row, None if one of them is unknown.

        Args:
            ids: of the whole row.
            labels: -100 where a token does not count.
        """
        total, begins = 0, True
        for token, label in zip(ids, labels, strict=True):
            if label != IGNORE:
                length = self.lengths[token]
                if length is None:
                    return None
                total += length - (begins and token in self.blank_first)
            begins = begins and token in self.special
        return total


def token_bytes(tokenizer: Tokenizer) -> TokenBytes | None:
    """Of a tokenizer of bytes (GPT-2, Llama 3, Qwen, SmolLM) or of SentencePiece (Llama 2, Gemma, Mistral).

    None for all others: one of whole words or word pieces does not keep the text, so its tokens have no bytes.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    state = json.loads(backend.to_str())
    decoders = list(_flat(state.get("decoder")))
    kinds = {part["type"] for part in decoders}
    is_bytes = "ByteLevel" in kinds
    is_blanks = "Metaspace" in kinds or any(
        part["type"] == "Replace" and part.get("pattern", {}).get("String") == _BLANK for part in decoders
    )
    if not is_bytes and not is_blanks:
        return None
    special = frozenset(tokenizer.all_special_ids)
    added = {int(token): str(content) for token, content in tokenizer.added_tokens_decoder.items()}
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    lengths: list[int | None] = []
    for token, name in enumerate(names):
        if token == tokenizer.unk_token_id:
            lengths.append(None)
        elif token in special or name is None:
            lengths.append(0)
        elif token in added:
            lengths.append(len(added[token].encode()))
        else:
            lengths.append(len(name) if is_bytes else _sentence_piece(name))
    mark = "\u0120" if is_bytes else _BLANK  # a blank among the letters that GPT-2 writes bytes with
    first = (
        {token for token, name in enumerate(names) if name is not None and name.startswith(mark) and token not in added}
        if _puts_a_blank(state)
        else set()
    )
    return TokenBytes(lengths, special, frozenset(first))


def _sentence_piece(name: str) -> int:
    return 1 if _BYTE.fullmatch(name) else len(name.replace(_BLANK, " ").encode())


def _puts_a_blank(state: dict[str, Any]) -> bool:
    """Whether a blank is put before a text, so that its first word is the same token as in the middle of one."""
    steps = [*_flat(state.get("normalizer")), *_flat(state.get("pre_tokenizer"))]
    return any(
        step["type"] == "Prepend"
        or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        or (step["type"] == "ByteLevel" and step.get("add_prefix_space"))
        for step in steps
    )


def _flat(step: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The steps of a sequence of steps."""
    if step is None:
        return
    if step["type"] != "Sequence":
        yield step
        return
    for inner in next(value for key, value in step.items() if key != "type"):
        yield from _flat(inner)
