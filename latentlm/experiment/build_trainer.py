"""The trainer that a recipe names, on its data and network."""

from functools import singledispatch
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from latentlm.data import Images
from latentlm.experiment.datasets import Prepared
from latentlm.experiment.recipe import Recipe
from latentlm.experiment.training import Grpo, Supervised
from latentlm.trainers.latent_trainer import LatentTrainer


@singledispatch
def trainer_of(part: Any, recipe: Recipe, folder: Path, prepared: Prepared, model: Any) -> Any:
    """A trainer, ready to train; chosen by the type of the recipe's `trainer` part."""
    raise TypeError(f"trainer: no trainer for {type(part).__name__}")


@trainer_of.register
def _(part: Supervised, recipe: Recipe, folder: Path, prepared: Prepared, model: Any) -> Any:
    return LatentTrainer(
        model=model,
        args=training_arguments(recipe, folder, len(prepared.dataset)),
        train_dataset=prepared.dataset,
        data_collator=prepared.collator,
        head_learning_rate=recipe.optim.head_learning_rate,
    )


@trainer_of.register
def _(part: Grpo, recipe: Recipe, folder: Path, prepared: Prepared, model: Any) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig  # pyright: ignore[reportPrivateImportUsage]

    from latentlm.trainers.grpo import LatentGRPOTrainer  # slow to import

    problems = recipe.data.problems("train")  # type: ignore[union-attr]

    def right(completions: list[str], number: list[int], **_: Any) -> list[float]:
        return [float(problems[i].solved(text)) for i, text in zip(number, completions, strict=True)]

    args = training_arguments(
        recipe,
        folder,
        recipe.batch.size,
        GRPOConfig,
        num_generations=part.group,
        temperature=part.temperature,
        max_completion_length=part.max_completion,
        beta=part.beta,
    )
    return LatentGRPOTrainer(
        model=model,
        reward_funcs=right,
        args=args,
        train_dataset=Dataset.from_list([{"prompt": p.prompt, "number": i} for i, p in enumerate(problems)]),
        processing_class=prepared.tokenizer,
        head_learning_rate=recipe.optim.head_learning_rate,
    )


def training_arguments(
    recipe: Recipe, folder: Path, num_examples: int, config: type[TrainingArguments] = TrainingArguments, **more: Any
) -> Any:
    """The recipe in the words of `transformers`, and those of another trainer's `config`."""
    optim, batch, run = recipe.optim, recipe.batch, recipe.run
    return config(
        output_dir=str(folder / "checkpoints"),
        max_steps=optim.steps or -1,
        num_train_epochs=optim.epochs,
        per_device_train_batch_size=min(batch.size, num_examples),
        gradient_accumulation_steps=batch.accumulation,
        learning_rate=optim.learning_rate,
        weight_decay=optim.weight_decay,
        adam_beta1=optim.betas[0],
        adam_beta2=optim.betas[1],
        max_grad_norm=optim.max_grad_norm,
        # their plain "constant" has no warm-up
        lr_scheduler_type="constant_with_warmup" if optim.schedule == "constant" else optim.schedule,
        warmup_steps=optim.warmup,
        seed=optim.seed,
        bf16=optim.precision == "bf16",
        logging_steps=run.log_every,
        save_strategy="steps" if run.save_every else "no",
        save_steps=run.save_every or 500,
        save_total_limit=run.keep,
        report_to=[name for name in run.report_to if name != "tensorboard"] or "none",
        use_cpu=run.device == "cpu" or not torch.accelerator.is_available(),  # said outright, or bf16 is refused
        # a smaller last batch of images would change the statistics of losses over the batch, and one image has none
        dataloader_drop_last=isinstance(recipe.data, Images),
        dataloader_num_workers=run.workers,
        activation_checkpointing=run.activation_checkpointing,
        torch_compile=run.compile,
        remove_unused_columns=False,
        dataloader_pin_memory=run.device == "auto" and torch.accelerator.is_available(),
        disable_tqdm=True,
        **more,
    )
