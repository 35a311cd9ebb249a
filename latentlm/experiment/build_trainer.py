"""The trainer that a recipe names, on its data and network."""

import os
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset

from latentlm.config.schema import ConfigError
from latentlm.data import Images, Mixture, VerifiableSource
from latentlm.data.images import ImageDataset, ImageStream
from latentlm.experiment.datasets import Prepared
from latentlm.experiment.held_out import HeldOutTrainer
from latentlm.experiment.recipe import Recipe
from latentlm.experiment.training import LARS, OWN, TRAINER, build_arguments
from latentlm.trainers.lars import Lars

MOST_WORKERS = 8  # that decode images, where the recipe does not say how many


def build_trainer(recipe: Recipe, folder: Path, prepared: Prepared, model: Any) -> Any:
    """A trainer, ready to train."""
    return (_grpo if recipe.trainer == "grpo" else _supervised)(recipe, folder, prepared, model)


def check_best_metric(recipe: Recipe, prepared: Prepared) -> None:
    """Refuse a metric that no evaluation of this run will have, which would otherwise end the run at its first one."""
    wanted = recipe.training.get("metric_for_best_model")
    if wanted is None or recipe.trainer == "grpo":
        return
    held_out = prepared.held_out
    if held_out is None:
        raise ConfigError("training.metric_for_best_model: nothing is held out; set data.validation (texts only)")
    known: list[str] = []
    for prefix in [f"eval_{name}" for name in held_out] if isinstance(held_out, dict) else ["eval"]:
        known += [f"{prefix}_loss", f"{prefix}_bits_per_token"]
        known += [f"{prefix}_bits_per_byte"] if prefix in prepared.bytes_per_token else []
        known += [f"{prefix}_above_entropy"] if prefix in prepared.entropy else []
    if f"eval_{wanted.removeprefix('eval_')}" not in known:
        raise ConfigError(f"training.metric_for_best_model: no '{wanted}' here; known: {', '.join(known)}")


def _supervised(recipe: Recipe, folder: Path, prepared: Prepared, model: Any) -> Any:
    return HeldOutTrainer(
        model=model,
        args=training_arguments(recipe, folder, prepared.dataset),
        train_dataset=prepared.dataset,
        eval_dataset=prepared.held_out,
        entropy=prepared.entropy,
        data_collator=prepared.collator,
        bytes_per_token=prepared.bytes_per_token,
        optimizer_cls_and_kwargs=own_optimizer(recipe),
        **{key: recipe.training[key] for key in TRAINER if key in recipe.training},
    )


def own_optimizer(recipe: Recipe) -> tuple[type, dict[str, float]] | None:
    """LARS, or SGD with momentum, by ``optim_args`` such as ``momentum=0.9``; None: one of transformers' own."""
    optim = recipe.training.get("optim")
    if optim not in (LARS, "sgd"):
        return None
    kind, known = (Lars, ("momentum", "trust")) if optim == LARS else (torch.optim.SGD, ("momentum",))
    told = recipe.training.get("optim_args") or ""
    options: dict[str, float] = {"lr": recipe.training.get("learning_rate", 5e-5)}
    for part in filter(None, told.replace(" ", "").split(",")):
        name, _, value = part.partition("=")
        try:
            options[name] = float(value)
        except ValueError:
            example = "momentum=0.9,trust=0.001" if optim == LARS else "momentum=0.9"
            raise ConfigError(f"training.optim_args: {part}; write it as {example}") from None
        if name not in known:
            raise ConfigError(f"training.optim_args: {optim} has no {name}; it has {' and '.join(known)}")
    return kind, options


def _grpo(recipe: Recipe, folder: Path, prepared: Prepared, model: Any) -> Any:
    """Completions that the network samples, rewarded with 1 where the data's own check finds them right.

        L_GRPO = -sum_i A_i log p(completion_i) / tokens,  A_i = (reward_i - mean of its prompt) / spread of its prompt

    TRL's `GRPOTrainer` with its token-wise mean (DAPO); the batch counts completions.

    Source:    arXiv 2402.03300; the mean of arXiv 2503.14476.
    Checked:   tests/experiment/test_grpo_recipe.py - right answers become more likely;
               tests/trainers/test_preference_trainers.py - the terms.
    """
    from datasets import Dataset

    from latentlm.trainers.grpo import LatentGRPOTrainer  # slow to import

    assert isinstance(recipe.source, VerifiableSource)
    problems = recipe.source.problems("train")

    def right(completions: list[str], number: list[int], **_: Any) -> list[float]:
        return [float(problems[i].solved(text)) for i, text in zip(number, completions, strict=True)]

    return LatentGRPOTrainer(
        model=model,
        reward_funcs=right,
        args=training_arguments(recipe, folder),
        train_dataset=Dataset.from_list([{"prompt": p.prompt, "number": i} for i, p in enumerate(problems)]),
        processing_class=prepared.tokenizer,
        **{key: recipe.training[key] for key in TRAINER if key in recipe.training},
    )


def _workers(num_shards: int) -> int:
    """Processes that decode images: as many as there are free cores, for a stream no more than it has files."""
    num = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(num, MOST_WORKERS, num_shards)


def training_arguments(recipe: Recipe, folder: Path, dataset: Any = None) -> Any:
    """The recipe's arguments as `transformers` or TRL take them, with what follows from the machine and the data."""
    values = {k: v for k, v in recipe.training.items() if k not in OWN}
    if values.get("optim") == LARS:  # is handed to the trainer itself
        values = {k: v for k, v in values.items() if k not in ("optim", "optim_args")}
    values["output_dir"] = str(folder / "checkpoints")
    if isinstance(dataset, ImageStream):
        # a batch holds more than rows, so no process can cut the batch of another into shares
        values.setdefault("accelerator_config", {"dispatch_batches": False})
    elif dataset is not None and not isinstance(dataset, IterableDataset):
        values["per_device_train_batch_size"] = min(values["per_device_train_batch_size"], len(dataset))
    if isinstance(dataset, ImageDataset | ImageStream) and dataset.is_decoded_late:
        values.setdefault(
            "dataloader_num_workers", _workers(dataset.num_shards if isinstance(dataset, ImageStream) else len(dataset))
        )
    if isinstance(names := values["report_to"], list):  # tensorboard gets its folder from us
        values["report_to"] = [name for name in names if name != "tensorboard"] or "none"
    elif names == "tensorboard":
        values["report_to"] = "none"
    accelerator = torch.accelerator.is_available()
    values.setdefault("use_cpu", not accelerator)  # stated outright, or bf16 is refused
    values.setdefault("dataloader_pin_memory", accelerator and not values["use_cpu"])
    # a smaller last batch of images would change the statistics of losses over the batch, and one image has none
    values.setdefault("dataloader_drop_last", isinstance(recipe.data, Images))
    if isinstance(recipe.data, Mixture) and recipe.data.streaming:
        # batches have rows of different lengths, which one process cannot cut up for the others
        values.setdefault("accelerator_config", {"dispatch_batches": False})
    if not isinstance(recipe.data, Images) and recipe.data.validation is not None:
        values.setdefault("eval_strategy", "epoch")
        values.setdefault("greater_is_better", False)  # of all of them; transformers takes it so for losses alone
        values.setdefault("per_device_eval_batch_size", values["per_device_train_batch_size"])
    return build_arguments(values, recipe.trainer)
