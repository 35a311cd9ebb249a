"""Keys, values and names of earlier versions, and what each is now: they are refused in one line that says so.

The one table for recipes, overrides, run folders and the ``latentlm`` block of a saved config.json.
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from latentlm.config.schema import ConfigError

# old key -> what it is now; * is any part of a key, a leading dot replaces the last part, KEY=VALUE is one value
KEYS = {
    "optim.steps": "training.max_steps",
    "optim.epochs": "training.num_train_epochs",
    "optim.betas": "training.adam_beta1 and training.adam_beta2",
    "optim.schedule": "training.lr_scheduler_type (constant with warm-up: constant_with_warmup)",
    "optim.warmup": "training.warmup_steps",
    "optim.precision": "training.bf16: true",
    "optim.*": "training.",
    "optim": "training, with the names of TrainingArguments",
    "run.dir": "training.output_dir",
    "run.resume": "training.resume_from_checkpoint",
    "run.log_every": "training.logging_steps",
    "run.save_every": "training.save_steps (only at the end: training.save_strategy=no)",
    "run.keep": "training.save_total_limit",
    "run.device": "training.use_cpu: true",
    "run.workers": "training.dataloader_num_workers",
    "run.activation_checkpointing": "training.gradient_checkpointing",
    "run.compile": "training.torch_compile",
    "run.*": "training.",
    "run": "training, with the names of TrainingArguments",
    "batch.size": "training.per_device_train_batch_size",
    "batch.accumulation": "training.gradient_accumulation_steps",
    "batch.layout=flat": "data.packing: padding_free",
    "batch.layout=rows": "data.packing: none",
    "batch.layout": "data.packing",
    "batch.pairs.read=alone": "data.span_pairs.source_context: isolated",
    "batch.pairs.read=in_place": "data.span_pairs.source_context: in_context",
    "batch.pairs.read=first": "data.span_pairs.source_context: isolated_first_only",
    "batch.pairs.crop": "data.augment: [{kind: span_crop, prob: SHARE}]",
    "batch.pairs.read_on": "data.augment: [{kind: continuation, prob: SHARE}]",
    "batch.pairs.strangers": "data.augment: [{kind: distractor, prob: SHARE}]",
    "batch.pairs.named": "data.span_pairs.target_span_ids",
    "batch.pairs.kind=given": "data.span_pairs.kind: annotated",
    "batch.pairs*": "data.span_pairs",
    "batch.gist": "data.augment: [{kind: gist_mask, prob: SHARE}]",
    "batch.word_dropout": "data.augment: [{kind: answer_noise, rate: SHARE}]",
    "batch.reverse_training": "data.augment: [reverse_words]",
    "batch.*": "data.",
    "batch": "data and training",
    "trainer.kind": "trainer: supervised or grpo",
    "trainer.group": "training.num_generations",
    "trainer.max_completion": "training.max_completion_length",
    "trainer.*": "training.",
    "model.train_up_to": "model.freeze_above",
    "model.heads=fresh": "model.load_latent_heads: false",
    "model.heads": "model.load_latent_heads: true",
    "model.lora.rank": "model.lora.r",
    "model.lora.alpha": "model.lora.lora_alpha",
    "model.lora.dropout": "model.lora.lora_dropout",
    "data.kind=chat": "data.source: FILE, whose columns decide",
    "data.spans": "read from the column spans wherever there is one",
    "data.carriers": "data.source.num_auxiliary_people",
    "data.carrier_documents": "data.source.docs_per_direction",
    "data.carrier_composed": "data.source.paraphrases_per_direction",
    "data.carrier_from_description": "data.source.max_description_first_docs",
    "data.items_per_split": "data.source.questions_per_split",
    "data.source.items_per_split": ".questions_per_split",
    "data.sentences=listed": "data.source.templates: fixed",
    "data.sentences": "data.source.templates: compositional",
    "data.source.size": "left out: files are cut as large as the model reads them",
    "data.source.mode": "left out: files become what the model reads, grey or in colours",
    "objective.data": "objective.lm_weight",
    "objective.monitor": "objective.monitor_every",
    "objective.terms.*.through": ".decode_with (lm_head or norm_and_lm_head)",
    "objective.terms.*.average": ".reduction (per_position or per_example)",
    "objective.terms.*.samples": ".sample_axis (positions or examples)",
    "objective.terms.*.near": ".distance_to",
    "objective.terms.*.relation": ".align",
    "objective.terms.*.share": ".shared_trunk",
    "objective.terms.*.target.final": ".final_momentum",
    "objective.terms.*.target.own_head": ".online_head",
    "objective.terms.*.target.every": ".refresh_every",
    "objective.terms.*.target.weights": ".checkpoint",
    "objective.terms.*.assign.over": ".per_position_of",
    "objective.terms.*.temperature.first": ".start",
    "objective.terms.*.temperature.last": ".end",
    "objective.terms.*.weights.diagonal": ".same_depth",
    "objective.terms.*.weights.deepest": ".top",
    "objective.terms.*.weights.last": ".top_to_top",
    "objective.terms.*.weights.rest": ".other",
}  # fmt: skip

# old value of any key of the objective -> what it is now
VALUES = {
    "kind=spread": "regularize",
    "kind=narrow": "transformer",
    "predictor=narrow": "transformer",
    "kind=branch": "linear_on",
    "kind=slots": "per_token_linear",
    "kind=token_code": "token_embeddings",
    "target.kind=data": "tokens",
    "kind=spans": "span_pairs",
    "kind=masked": "masked_patches",
    "kind=views": "cross_view",
    **{f"{key}={old}": new
       for key in ("at", "ids", "where")
       for old, new in {
           "span_end": "source_last", "other_ids": "target_ids", "other_end": "target_last",
           "before_other": "before_target", "other_at": "target_positions", "class": "cls", "class_a": "cls_1",
           "class_b": "cls_2", "place_a": "matched_patches_1", "place_b": "matched_patches_2",
       }.items()},
}  # fmt: skip

# sets of text that were kinds of `data` themselves, and the keys that moved with them
SOURCES = (
    "text", "facts", "name_description", "instructions", "thinking_bias", "parent_child", "binding", "identity_bridge",
    "family", "retrieval", "chain", "star_graph", "arithmetic",
)  # fmt: skip
SOURCE_KEYS = (
    "num_a_to_b", "num_b_to_a", "num_both", "relations", "templates_per_fact", "name_parts", "description_words",
    "description_length", "items_per_split", "seed", "folder", "subset", "subsets", "split", "max_documents",
    "num_train", "num_test", "highest",
)  # fmt: skip

RECIPES = {
    "smoke/text": "smoke_text",
    "smoke/vision": "smoke_vision",
    "text/reversal_carried": "reversal_pretrained",
    "reversal_carried": "reversal_pretrained",
}
COMMANDS = {"texts": "export-data"}


def check_data(data: Any, where: str) -> None:
    """Refuse plain data that has a key of an earlier version, saying what it is now."""
    if found := _oldest(list(_flat(data))):
        raise ConfigError(f"{where}: {found}")


def check_overrides(pairs: Sequence[tuple[str, Any]]) -> None:
    """The same of overrides, as pairs of key path and value."""
    for key, value in pairs:
        if found := _oldest([(key, value), *_flat(value, key)]):
            raise ConfigError(found)


def renamed_recipe(name: str) -> str | None:
    """The name of today's recipe for an old one."""
    folder, _, stem = name.partition("/")
    return RECIPES.get(name) or (stem if folder in ("text", "vision") and stem else None)


def _oldest(entries: list[tuple[str, Any]]) -> str | None:
    """One line about the most telling old key: the deepest one."""
    found = [(key, line) for key, value in entries if (line := _now(key, value))]
    return max(found, key=lambda pair: pair[0].count("."))[1] if found else None


def _now(key: str, value: Any) -> str | None:
    """The line about one key with its value, where one of the two is old."""
    for old, new in KEYS.items():
        name, equals, wanted = old.partition("=")
        if fnmatchcase(key, name) and (not equals or wanted == value):
            parent, _, last = key.rpartition(".")
            now = f"{parent}{new}" if new.startswith(".") else f"{new}{last}" if new.endswith(".") else new
            return f"{key}: {value} is now {now}" if equals else f"{key} is now {now}"
    if key.startswith("objective.") and isinstance(value, str):
        for old, new in VALUES.items():
            name, _, wanted = old.partition("=")
            if wanted == value and f".{key}".endswith(f".{name}"):
                return f"{key}: {value} is now {new}"
    block, _, last = key.partition(".")
    if key == "data.kind" and value in SOURCES and value != "text":
        return f"{key}: {value} is now data.source.kind: {value}"
    if block == "data" and last in SOURCE_KEYS:
        return f"{key} is now data.source.{last}"
    return None


def _flat(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key path of plain data with its value, lists left out."""
    if isinstance(data, dict):
        for key, value in data.items():
            below = f"{path}.{key}" if path else str(key)
            yield below, value
            yield from _flat(value, below)
