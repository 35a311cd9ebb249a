"""What is asked, as the model reads it: tokens of each prompt, and of the right answer after it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from latentlm.backbones.load import load_config
from latentlm.data.text.chat_spans import render
from latentlm.data.text.encoding_report import DocumentError, some
from latentlm.export.export import ADAPTER
from latentlm_evals.answers.rows import Asked, Asking, Message
from latentlm_evals.models.generation import prompt_ids
from latentlm_evals.models.load import is_adapter
from latentlm_evals.models.losses import IGNORE, Labelled

_MARK = "\ue000"  # of the private use area: in no template


@dataclass(frozen=True)
class Prompt:
    """A prompt that fits into the model.

    Attributes:
        asked: as text.
        text: as the model reads it, special tokens included.
        ids: tokens of the prompt.
        right: the prompt with the right answer and its end, of which the labels are those of the answer and its end.
    """

    asked: Asked
    text: str
    ids: list[int]
    right: Labelled


@dataclass(frozen=True)
class Prompts:
    """All that is asked, and the tokens that end an answer.

    Attributes:
        rows: what is asked.
        skipped: rows that cannot be used, and why.
        num_rows: of the file.
        stop: tokens after which an answer ends.
        max_new_tokens: most tokens of an answer.
        short: right answers that have more tokens than that.
    """

    rows: Sequence[Prompt]
    skipped: Sequence[str]
    num_rows: int
    stop: Sequence[int]
    max_new_tokens: int
    short: int


def positions_of(name: str) -> int | None:
    """Longest sequence of a checkpoint or adapter; None where there is no limit."""
    if is_adapter(name):
        base = json.loads((Path(name) / ADAPTER).read_text(encoding="utf-8")).get("base_model_name_or_path")
        return positions_of(base) if base and base != name else None
    return most_positions(load_config(name))


def most_positions(config: object) -> int | None:
    """The same of a transformers config."""
    get = getattr(config, "get_text_config", None)
    return getattr(get() if get else config, "max_position_embeddings", None)


def build_prompts(
    asking: Asking, tokenizer: PreTrainedTokenizerBase, positions: int | None, max_new_tokens: int | None, spare: int
) -> Prompts:
    """Tokens of all that is asked; ValueError where no row is left.

    Args:
        asking: rows of a file.
        tokenizer: of the model.
        positions: longest sequence of the model.
        max_new_tokens: most tokens of an answer; None: as many as the longest right one and `spare` more.
        spare: see there.
    """
    is_chat = any(not isinstance(asked.prompt, str) for asked in asking.asked)
    if is_chat and tokenizer.chat_template is None:
        raise ValueError("source: its messages need a chat template, and the tokenizer has none; use a chat model")
    end, stop = _turn_end(tokenizer) if is_chat else ("", [])
    stop = [*stop, *([tokenizer.eos_token_id] if isinstance(tokenizer.eos_token_id, int) else [])]
    found, skipped = [], list(asking.skipped)
    for asked in asking.asked:
        try:
            prompt = _prompt(asked, tokenizer, end, stop)
            need = max(len(prompt.right.ids), len(prompt.ids) + (max_new_tokens or 1))
            if positions is not None and need > positions:
                raise DocumentError(f"prompt and answer need {need} positions, the model has {positions}")
            found.append(prompt)
        except DocumentError as error:
            skipped.append(f"row {asked.row}: {error}")
    if not found:
        raise ValueError(f"source: none of {asking.num_rows} rows can be used: {some(skipped)}")
    longest = max(prompt.right.count for prompt in found)
    most = max_new_tokens or longest + spare
    if positions is not None:
        most = min(most, positions - max(len(prompt.ids) for prompt in found))
    short = sum(prompt.right.count > most for prompt in found)
    return Prompts(found, skipped, asking.num_rows, stop, most, short)


def _prompt(asked: Asked, tokenizer: PreTrainedTokenizerBase, end: str, stop: Sequence[int]) -> Prompt:
    if isinstance(asked.prompt, str):
        # a model is trained on prompt and completion joined, where a blank belongs to the word after it
        prompt = asked.prompt.rstrip(" ")
        ids = prompt_ids(tokenizer, prompt) if prompt else []
        whole = list(tokenizer(asked.prompt + asked.gold)["input_ids"])
    else:
        prompt = _render(tokenizer, asked.prompt, asked.tools, add_generation_prompt=True)
        answer = {"role": "assistant", "content": asked.gold}
        rendered = _render(tokenizer, [*asked.prompt, answer], asked.tools, add_generation_prompt=False)
        text = rendered if rendered.startswith(prompt) else prompt + asked.gold + end
        ids, whole = (list(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in (prompt, text))
    if not ids:
        raise DocumentError("its prompt has no tokens")
    whole = _until_end(whole, len(ids), stop)
    same = next((i for i, (a, b) in enumerate(zip(ids, whole, strict=False)) if a != b), min(len(ids), len(whole)))
    first = min(same, len(whole) - 1)
    if not first:  # joined they are one other word
        answer = tokenizer(asked.gold, add_special_tokens=False)["input_ids"]
        whole, first = [*ids, *answer, *stop[-1:]], len(ids)
    return Prompt(asked, prompt, ids, Labelled(whole, [IGNORE] * first + whole[first:]))


def _until_end(ids: list[int], start: int, stop: Sequence[int]) -> list[int]:
    """Up to the token that ends the answer; a template writes a line break after it, a plain text has none yet."""
    ends = [place for place, token in enumerate(ids) if token in stop and place >= start]
    return ids[: ends[-1] + 1] if ends else [*ids, *stop[-1:]]


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[object] | None,
    *,
    add_generation_prompt: bool,
) -> str:
    options = {"tools": list(tools)} if tools else {}
    return render(messages, tokenizer, add_generation_prompt=add_generation_prompt, **options)


def _turn_end(tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[int]]:
    """What the chat template writes after an answer, and the special token that begins it, if one does."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
    try:
        _, _, end = _render(tokenizer, messages, None, add_generation_prompt=False).rpartition(_MARK)
    except DocumentError:  # it wants other messages: then the eos token alone ends a turn
        return "", []
    ids = list(tokenizer(end, add_special_tokens=False)["input_ids"])
    named = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return end, [token for token in ids[:1] if token in named]
