"""From a folder on disk to a scored model, as the command line does it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from latentlm.data import Item
from latentlm.recipe import load_recipe

from .groups import evaluate


def run(
    run_dir_or_model: str,
    *,
    data: Any = None,
    out: str | Path | None = None,
    device: str | None = None,
    limit: int | None = None,
    **settings: Any,
) -> dict:
    """Score a run folder, or any checkpoint of a causal language model, and write the result.

    Args:
        run_dir_or_model: a folder with ``recipe.yaml`` and ``model/``, or a checkpoint folder or hub name.
        data: where the test items come from, if not the run's own recipe: a recipe file or a data part.
        out: result file; a run folder's default is ``eval/reversal.json`` in it, a checkpoint's is none.
        device: torch device; the GPU if there is one.
        limit: questions of each subset, split and asked kind, spread over the facts; all without it.
        settings: passed on to `evaluate`.
    """
    folder = Path(run_dir_or_model)
    is_run = (folder / "recipe.yaml").is_file()
    if data is None and not is_run:
        raise ValueError(f"data: {folder} has no recipe.yaml to take test items from: name a recipe or a data part")
    source = folder / "recipe.yaml" if data is None else data
    part = load_recipe(source).data if isinstance(source, str | Path) else source
    if is_run and not (folder / "model").is_dir():
        raise ValueError(f"{folder}: has no model/ to score: let the training finish first")
    name = str(folder / "model") if is_run else run_dir_or_model
    model, tokenizer = load(name, device)
    result = evaluate(model, tokenizer, spread(part.items(), limit), **settings)
    result["config"] |= {"model_path": name, "data": repr(part), "limit": limit}
    target = folder / "eval" / "reversal.json" if out is None and is_run else out
    if target is not None:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def spread(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most `limit` items of each subset, split and asked kind, evenly spaced, so that every fact has its turn."""
    if limit is None:
        return list(items)
    groups: dict[tuple[str, str, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.subset, item.split, item.asks), []).append(item)
    places = [(rows, min(limit, len(rows))) for rows in groups.values()]
    return [rows[i * len(rows) // count] for rows, count in places for i in range(count)]


def load(name: str, device: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer of a checkpoint; ValueError if it was not saved with a next-token head."""
    adapter = (Path(name) / "adapter_config.json").is_file()  # names its own base model
    saved = [] if adapter else AutoConfig.from_pretrained(name).architectures or []
    # AutoModelForCausalLM would give such a checkpoint a fresh random head and scores without a meaning
    if saved and not set(saved) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
        raise ValueError(f"{name}: holds a {saved[0]}, not a causal language model: save it with its next-token head")
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # heads beside the network would be listed as unexpected
    try:
        model, report = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True)
    finally:
        logging.set_verbosity(level)
    if report["missing_keys"]:
        raise ValueError(f"{name}: lacks the weights {', '.join(sorted(report['missing_keys'])[:3])}: save it whole")
    model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return model, AutoTokenizer.from_pretrained(name)
