"""The `training` block of a recipe: every argument of transformers' TrainingArguments, checked key by key.

With ``trainer: grpo`` the arguments are those of TRL's GRPOConfig. Besides them there are ``head_learning_rate``,
``when_not_finite`` and ``resume_from_checkpoint``; ``true`` continues from the newest checkpoint of the run folder.
"""

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from latentlm.config.schema import ConfigError, fields_of, parse, suggest

# where a run differs from TrainingArguments' own defaults, and what the library itself reads
DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "max_steps": -1,
    "num_train_epochs": 3.0,
    "seed": 42,
    "logging_steps": 10,
    "save_total_limit": 2,
    "report_to": "none",
    "disable_tqdm": True,
    "remove_unused_columns": False,
    "gradient_checkpointing": False,
}
# what may change when a run is resumed, since it does not change what is learned
FREE = (
    "output_dir", "resume_from_checkpoint", "when_not_finite", "max_steps", "num_train_epochs", "logging_*", "log_*",
    "save_*", "eval_*",
    "per_device_eval_batch_size", "report_to", "run_name", "project", "trackio_*", "push_to_hub", "hub_*", "use_cpu",
    "dataloader_num_workers", "dataloader_p*", "gradient_checkpointing*", "activation_checkpointing*",
    "torch_compile*", "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "disable_tqdm",
    "skip_memory_metrics", "do_*", "local_rank", "ddp_*", "fsdp*", "deepspeed*", "include_num_input_tokens_seen",
)  # fmt: skip

_ABOVE_ZERO = (
    "learning_rate", "head_learning_rate", "num_train_epochs", "adam_epsilon", "logging_steps", "save_steps",
    "eval_steps", "temperature", "layer_decay", "max_weight_grad_norm",
)  # fmt: skip
_AT_LEAST = {
    "per_device_train_batch_size": 1, "per_device_eval_batch_size": 1, "gradient_accumulation_steps": 1,
    "save_total_limit": 1, "num_generations": 2, "max_completion_length": 1, "weight_decay": 0,
    "final_weight_decay": 0, "max_grad_norm": 0,
    "warmup_steps": 0, "dataloader_num_workers": 0, "seed": 0, "data_seed": 0, "beta": 0, "eval_delay": 0,
    "neftune_noise_alpha": 0, "eval_accumulation_steps": 1, "torch_empty_cache_steps": 1, "num_iterations": 1,
    "steps_per_generation": 1, "generation_batch_size": 1, "dataloader_prefetch_factor": 1, "ddp_timeout": 1,
}  # fmt: skip
_BELOW_ONE = ("adam_beta1", "adam_beta2")
_SHARE = ("label_smoothing_factor", "top_p", "min_p", "warmup_ratio", "layer_decay")
_MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Training:
    """Every argument of transformers' TrainingArguments, by the same name; with `trainer: grpo` of TRL's GRPOConfig.

    Some defaults differ: `logging_steps` is 10, `save_total_limit` is 2 and `report_to` is none, because every run
    writes its own metrics.jsonl. `optim` may also be ``lars``, whose `optim_args` are momentum and trust; ``sgd`` has
    momentum. Besides them there are keys of our own.

    Args:
        head_learning_rate: of the heads and predictors that are trained with a pretrained network; without it
            `learning_rate`.
        layer_decay: learning rate of a block as a share of that of the block above it (0.75); heads have it whole.
        final_weight_decay: weight decay at the last step, reached along half a cosine from `weight_decay` (DINO: 0.4).
        max_weight_grad_norm: limit of the length of each weight's own gradient (DINO: 3.0); set `max_grad_norm` to 0.
        when_not_finite: ``stop`` ends the run at the first step whose loss or gradient is NaN or infinite; ``skip``
            leaves such steps out, ten in a row at most.
        resume_from_checkpoint: ``true`` continues from the newest checkpoint of the run folder; a path names another.
    """

    head_learning_rate: float | None = None
    layer_decay: float | None = None
    final_weight_decay: float | None = None
    max_weight_grad_norm: float | None = None
    when_not_finite: Literal["stop", "skip"] = "stop"
    resume_from_checkpoint: bool | str | None = None


LARS = "lars"  # of `optim`, beside transformers' own
OWN = {name: annotation for name, (annotation, _) in fields_of(Training).items()}
# arguments of our trainers, not of transformers'
TRAINER = ("head_learning_rate", "layer_decay", "final_weight_decay", "max_weight_grad_norm", "when_not_finite")


def arguments_class(trainer: str) -> Any:
    """The class whose arguments the block has."""
    if trainer == "grpo":
        from trl import GRPOConfig  # pyright: ignore[reportPrivateImportUsage]

        return GRPOConfig
    from transformers import TrainingArguments

    return TrainingArguments


def check_training(given: Mapping[str, Any], trainer: str) -> dict[str, Any]:
    """The block with `DEFAULTS`, or a ConfigError that names ``training.KEY``."""
    known = arguments_class(trainer)
    types = typing.get_type_hints(known) | OWN
    types = {field.name: types[field.name] for field in dataclasses.fields(known)} | OWN
    checked: dict[str, Any] = {}
    for key, value in given.items():
        if key not in types:
            raise ConfigError(f"training: unknown key '{key}' for {known.__name__}{suggest(str(key), list(types))}")
        own = key == "optim" and value == LARS
        checked[key] = value if own else _typed(types[key], value, f"training.{key}")
        _check_range(key, checked[key])
    _check_trackers(checked.get("report_to"))
    if checked.get("remove_unused_columns"):
        raise ConfigError("training.remove_unused_columns: the columns are those that the terms read; leave it out")
    if checked.get("optim") == LARS and trainer == "grpo":
        raise ConfigError("training.optim: lars is not for grpo; use one of transformers' own")
    if checked.get("max_weight_grad_norm") is not None and checked.get("max_grad_norm", 1.0):
        raise ConfigError(
            "training.max_weight_grad_norm: all weights are clipped together before; set max_grad_norm: 0"
        )
    if checked.get("final_weight_decay") is not None and not checked.get("weight_decay"):
        raise ConfigError("training.final_weight_decay: weight_decay is 0, and so are all groups; set it above 0")
    return {**DEFAULTS, **checked}


def lasting(training: Mapping[str, Any], trainer: str) -> dict[str, Any]:
    """What must stay the same when a run is resumed, with every default filled in."""
    from fnmatch import fnmatch

    values = {
        field.name: field.default_factory() if callable(field.default_factory) else field.default
        for field in dataclasses.fields(arguments_class(trainer))
    }
    values = {**values, **dict.fromkeys(OWN), **training}
    return {key: value for key, value in values.items() if not any(fnmatch(key, free) for free in FREE)}


def build_arguments(values: dict[str, Any], trainer: str) -> Any:
    """The arguments themselves; what their own checks refuse is one line."""
    known = arguments_class(trainer)
    values, names = dict(values), {field.name for field in dataclasses.fields(known)}
    for old in ("gradient_checkpointing", "gradient_checkpointing_kwargs"):
        new = old.replace("gradient", "activation")  # its name in newer versions
        if new in names and old in values:
            values = {new: values.pop(old)} | values
    try:
        return known(**values)
    except (ValueError, TypeError, ImportError, NotImplementedError, OSError, KeyError) as error:
        raise ConfigError(f"training: {' '.join(str(error).split())[:300]}") from error


def _typed(annotation: Any, value: Any, path: str) -> Any:
    """The value as the argument's type has it; the names of an enumeration are told."""
    options = typing.get_args(annotation) or (annotation,)
    for option in options:
        if isinstance(option, type) and issubclass(option, Enum):
            names = [str(member.value) for member in option]
            value = "no" if value is False and "no" in names else value  # YAML reads no as false
            if isinstance(value, str) and value not in names:
                raise ConfigError(f"{path}: unknown value '{value}'{suggest(value, names)}")
    if float in options and type(value) is int:
        return value  # a count may be written without a point
    return parse(annotation, value, path)


def _check_range(key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        raise ConfigError(f"training.{key}: {value}; give a finite number")
    if key == "max_steps" and value < 1 and value != -1:
        raise ConfigError(f"training.max_steps: {value}; set it to 1 or more, or leave it out for num_train_epochs")
    if key in _ABOVE_ZERO and value <= 0:
        hint = ", or set save_strategy: 'no' to save only at the end" if key == "save_steps" else ""
        raise ConfigError(f"training.{key}: {value}; set it above 0{hint}")
    if key in _AT_LEAST and value < _AT_LEAST[key]:
        raise ConfigError(f"training.{key}: {value}; set it to {_AT_LEAST[key]} or more")
    if key in _BELOW_ONE and not 0 <= value < 1:
        raise ConfigError(f"training.{key}: {value}; set it to 0 or more and below 1")
    if key in _SHARE and not 0 <= value <= 1:
        raise ConfigError(f"training.{key}: {value} is a share; set it to 0 - 1")
    if key in ("seed", "data_seed") and value > _MAX_SEED:
        raise ConfigError(f"training.{key}: {value}; set it to {_MAX_SEED} or less")
    if abs(value) >= 2**53:
        raise ConfigError(f"training.{key}: {value} is too large")


def _check_trackers(names: Any) -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    known = ["none", "all", *INTEGRATION_TO_CALLBACK]
    for name in [names] if isinstance(names, str) else names or ():
        if name not in known:
            raise ConfigError(f"training.report_to: unknown value '{name}'{suggest(name, known)}")
