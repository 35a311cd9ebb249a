"""A recipe as it is written in a file: blocks that may be names, and every argument of TrainingArguments by its key."""

import dataclasses
from enum import Enum
from typing import Any

from latentlm.config.schema import fields_of
from latentlm.experiment.recipe import Recipe
from latentlm.experiment.training import DEFAULTS, Training

TRY_ON = "in a method: the experiment that it is tried on, where no model and no data are named"
NAMED = ("objective", "model")  # blocks that may be the name of a file with the block


def file_form(arguments: type | None = None) -> type:
    """The class of a recipe as a file has it, for its reference; `arguments` adds the keys of TrainingArguments."""
    fields = []
    for name, (annotation, field) in fields_of(Recipe).items():
        if name in NAMED:
            annotation = annotation | str
        if name == "training":
            annotation = training_form(arguments)
        fields.append((name, annotation, _fresh(field)))
    fields.append(("try_on", str | None, dataclasses.field(default=None, metadata={"help": TRY_ON}, kw_only=True)))
    form = dataclasses.make_dataclass("Recipe", fields)
    form.__doc__ = Recipe.__doc__
    return form


def training_form(arguments: type | None) -> type:
    """The training block as a class: the keys of `Training`, then those of `arguments` with our defaults."""
    own = fields_of(Training)
    fields = [(name, annotation, _fresh(field)) for name, (annotation, field) in own.items()]
    for name, (annotation, field) in (fields_of(arguments) if arguments else {}).items():
        if name not in own:
            fields.append((name, annotation, _fresh(field, name)))
    form = dataclasses.make_dataclass("Training", fields)
    form.__doc__, form.__module__ = Training.__doc__, Training.__module__
    return form


def _fresh(field: dataclasses.Field, name: str = "") -> Any:
    """The same default and help text for another class."""
    default = DEFAULTS.get(name, field.default)
    default = default.value if isinstance(default, Enum) else default
    if default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return dataclasses.field(metadata=field.metadata, kw_only=True)
    if default is not dataclasses.MISSING:
        return dataclasses.field(default=default, metadata=field.metadata, kw_only=True)
    return dataclasses.field(default_factory=field.default_factory, metadata=field.metadata, kw_only=True)
