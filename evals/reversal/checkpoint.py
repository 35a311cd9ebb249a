"""From a folder on disk to a scored model, as the command line does it."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from latentlm.data import Data, Item
from latentlm.recipe import load_recipe

from ..runs import is_run, weights_of, write_result
from .groups import evaluate
from .options import Options

DEFAULTS = Options()


def run(name: str, options: Options = DEFAULTS) -> dict:
    """Score a run folder, or any checkpoint or adapter of a causal language model, and write the result."""
    path = weights_of(name)
    own = load_recipe(name).data if is_run(name) else None
    parts = options.suite or [_part(options.data) if options.data is not None else own]
    if parts[0] is None:
        raise ValueError(f"{name}: has no recipe.yaml to take test items from; name a recipe with --data, or a --suite")
    items = spread([item for part in parts for item in part.items()], options.limit)
    model, tokenizer = load(path, options.device)
    result = evaluate(
        model,
        tokenizer,
        items,
        batch_size=options.batch_size,
        seed=options.seed,
        max_ranked=options.ranked,
        max_candidates=options.candidates,
        num_permutations=options.permutations,
    )
    result["config"] |= {"model_path": path, "data": repr(parts), "limit": options.limit}
    for part in parts:  # another seed has other names, which this run has never seen
        if own is not None and type(part) is type(own) and part != own:
            result["warnings"].append(f"other_data: the run was trained on {own}, not on the tested {part}")
    write_result(result, "reversal", name, options.out)
    return result


def _part(data: str | Data) -> Data:
    return load_recipe(data).data if isinstance(data, str) else data


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
        # half precision is slow on a CPU
        more = {"dtype": torch.float32} if _place(device) == "cpu" else {}
        model, report = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **more)
    finally:
        logging.set_verbosity(level)
    if report["missing_keys"]:
        raise ValueError(f"{name}: lacks the weights {', '.join(sorted(report['missing_keys'])[:3])}: save it whole")
    model.to(_place(device))
    return model, AutoTokenizer.from_pretrained(name)


def _place(device: str | None) -> str:
    return device or ("cuda" if torch.cuda.is_available() else "cpu")
