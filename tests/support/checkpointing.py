"""Recomputing blocks in the backward, by the name that the installed transformers has for it."""

from dataclasses import fields

from transformers import PreTrainedModel, TrainingArguments

NAMES = ("activation_checkpointing", "gradient_checkpointing")  # the second is the older one
METHOD = next(name for name in NAMES if hasattr(PreTrainedModel, f"{name}_enable"))
ARGUMENT = next(name for name in NAMES if name in {field.name for field in fields(TrainingArguments)})


def recompute(model, **options) -> None:
    getattr(model, f"{METHOD}_enable")(options)


def keep_activations(model) -> None:
    getattr(model, f"{METHOD}_disable")()


def arguments(on: bool, **options) -> dict:
    """For `TrainingArguments` and the classes made from it."""
    return {ARGUMENT: on, f"{ARGUMENT}_kwargs": options}
