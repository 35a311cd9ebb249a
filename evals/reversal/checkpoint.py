"""From a folder on disk to a scored model, as the command line does it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from latentlm.data import Data, Item
from latentlm.recipe import load_recipe

from .groups import evaluate


@dataclass(frozen=True)
class Options:
    """What is asked.

    Args:
        data: where the test items come from: a recipe, its name or a data part; null: the run's own recipe.
        limit: questions of each subset, split and asked kind, spread over the facts; null: all.
        ranked: questions of each kind whose answers are ranked.
        out: result file; null: eval/reversal.json in a run folder, and none beside another checkpoint.
        device: torch device; null: the GPU if there is one.
        batch_size: prompts in a forward.
        permutations: swaps of entities behind every p value.
    """

    data: str | Data | None = None
    limit: int | None = None
    ranked: int = 100
    out: str | None = None
    device: str | None = None
    batch_size: int = 64
    permutations: int = 2000

    def __post_init__(self):
        for key in ("limit", "ranked", "batch_size", "permutations"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"{key}: {value}; set it to 1 or more")


def run(name: str, options: Options = Options()) -> dict:
    """Score a run folder, or any checkpoint of a causal language model, and write the result.

    Args:
        name: a folder with ``recipe.yaml`` and ``model/``, or a checkpoint folder or hub name.
        options: what is asked.
    """
    folder = Path(name)
    is_run = (folder / "recipe.yaml").is_file()
    if options.data is None and not is_run:
        raise ValueError(f"{name}: no run folder (no recipe.yaml); name one, or give the test data with --data RECIPE")
    source = folder / "recipe.yaml" if options.data is None else options.data
    part = load_recipe(source).data if isinstance(source, str | Path) else source
    if is_run and not (folder / "model").is_dir():
        raise ValueError(f"{folder}: has no model/ to score: let the training finish first")
    path = str(folder / "model") if is_run else name
    model, tokenizer = load(path, options.device)
    result = evaluate(
        model,
        tokenizer,
        spread(part.items(), options.limit),
        max_ranked=options.ranked,
        batch_size=options.batch_size,
        num_permutations=options.permutations,
    )
    result["config"] |= {"model_path": path, "data": repr(part), "limit": options.limit}
    target = folder / "eval" / "reversal.json" if options.out is None and is_run else options.out
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
