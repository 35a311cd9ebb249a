"""Texts that a language model writes by itself: what it knows, to be read again while it learns something else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from latentlm.backbones.load import load_config, load_weights, readable
from latentlm.config.schema import ConfigError
from latentlm.whole_files import whole_file

BATCH = 32  # texts written at a time
SHORTEST = 4  # tokens; a text that ends sooner teaches nothing


def check_texts(name: str, out: Path, rows: int, tokens: int, temperature: float) -> None:
    """Refuse what cannot be written, before a model is loaded."""
    if out.suffix != ".jsonl":
        raise ConfigError(f"sample: {out}; name a file that ends in .jsonl")
    if out.exists():
        raise ConfigError(f"sample: {out} is there already; name a new file")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"sample: {out.absolute().parent} is no folder; make it first")
    for key, value, least in (("--rows", rows, 1), ("--tokens", tokens, SHORTEST)):
        if value < least:
            raise ConfigError(f"sample: {key}: {value}; give {least} or more")
    if not 0 < temperature < float("inf"):
        raise ConfigError(f"sample: --temperature: {temperature}; give a number above 0")
    if Path(name).exists() and not (Path(name) / "config.json").is_file():
        raise ConfigError(f"sample: {name} has no config.json; name a model folder, such as RUN/model, or a hub name")


def write_model_texts(
    name: str, out: Path, rows: int, tokens: int = 128, temperature: float = 1.0, start: str = "", seed: int = 0
) -> tuple[int, int]:
    """Write `out`, a JSON line ``{"text": ...}`` for each text that the model samples from its own distribution.

        x_t ~ softmax(logits(x_<t) / temperature),   x_0: the tokenizer's first token, or `start`

    A text ends where the model ends it, or after `tokens` tokens. Texts of fewer than 4 tokens are left out and drawn
    again, a few times.

    Args:
        name: folder or hub name of a causal language model.
        out: a file that is not there yet.
        rows: how many texts.
        tokens: most tokens of a text.
        temperature: below 1 the texts are likelier and more alike.
        start: words that every text begins with.
        seed: of the draws.

    Returns:
        How many texts were written, and how many were too short.
    """
    check_texts(name, out, rows, tokens, temperature)
    config = load_config(name)
    if config.is_encoder_decoder:
        raise ConfigError(f"sample: {name} is an encoder-decoder; name a causal language model")
    with readable(name):
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_weights(AutoModelForCausalLM, name, dtype=torch.float32).to(device).eval()
    first = _first(tokenizer, config, start)
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    if most is not None and len(first) + tokens > most:
        raise ConfigError(f"sample: --tokens: {tokens}; the model has {most} positions, {len(first)} for the start")
    limits = GenerationConfig(
        max_new_tokens=tokens, do_sample=True, temperature=temperature, top_k=0, top_p=1.0,
        eos_token_id=model.generation_config.eos_token_id, pad_token_id=_pad(tokenizer, model),
    )  # fmt: skip
    found, short = 0, 0
    with torch.random.fork_rng(), whole_file(out) as partial, partial.open("w", encoding="utf-8") as file:
        torch.manual_seed(seed)
        for text in _texts(model, tokenizer, first, limits):
            if text is None:
                short += 1
                if short > 10 * rows + 100:
                    raise ConfigError(f"sample: {name} ends nearly every text at once; give it a --start")
                continue
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            found += 1
            if found == rows:
                break
    return found, short


def _texts(model: Any, tokenizer: Any, first: list[int], limits: GenerationConfig) -> Iterator[str | None]:
    """One text after the other without end; None: one that was too short."""
    prompt = torch.tensor([first] * BATCH, device=model.device)
    while True:
        with torch.inference_mode():
            written = model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=limits)
        for row in written.tolist():
            text = tokenizer.decode(row, skip_special_tokens=True).strip()
            yield text if len(tokenizer(text, add_special_tokens=False).input_ids) >= SHORTEST else None


def _first(tokenizer: Any, config: Any, start: str) -> list[int]:
    """Ids that every text begins with."""
    ids = [int(i) for i in tokenizer(start, add_special_tokens=False).input_ids] if start else []
    known = (tokenizer.bos_token_id, getattr(config, "bos_token_id", None), tokenizer.eos_token_id)
    begin = next((i for i in known if isinstance(i, int)), None)
    if begin is None and not ids:
        raise ConfigError("sample: --start: the tokenizer has no first token; give the words that a text begins with")
    return ids if begin is None else [begin, *ids]


def _pad(tokenizer: Any, model: Any) -> int:
    """Any id: what stands behind the end of a text is cut."""
    ends = model.generation_config.eos_token_id
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends if isinstance(ends, int) else 0
