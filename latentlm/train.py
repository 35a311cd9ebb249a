"""From a recipe to a trained run folder: data, network, checks, and the loop, which is transformers'."""

import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.integrations.integration_utils import TensorBoardCallback

from latentlm.callbacks import Bar, Epochs, Interrupt, Lines, console
from latentlm.config import ConfigError
from latentlm.data import Images
from latentlm.depth import rank_over_depth
from latentlm.folder import (
    add_seconds,
    check_folder,
    is_finished,
    is_first,
    newest_checkpoint,
    open_folder,
    write_json,
)
from latentlm.network import build_model, read_config
from latentlm.prepare import Prepared, prepare
from latentlm.recipe import Recipe, Run
from latentlm.trainer import LatentTrainer


def train(recipe: Recipe) -> Path:
    """Run a recipe and return its run folder.

    The folder holds recipe.yaml (resolved, itself valid), run.json (versions, commit, command), metrics.jsonl,
    checkpoints, model/ (a Hugging Face checkpoint with tokenizer or image processor), adapter/ where one was trained,
    and depth.json (rank of the latents at each depth).
    """
    folder = check_folder(recipe)
    if is_finished(folder, recipe):
        console.print(f"{folder} is finished; nothing to do")
        return folder
    _check_trackers(recipe.run)
    config = read_config(recipe)
    set_seed(recipe.optim.seed)
    prepared = prepare(recipe, config)
    model = build_model(recipe, config, prepared.tokenizer)
    prepared.check(model)
    bar = Bar(recipe.objective, folder)
    trainer = LatentTrainer(
        model=model,
        args=training_arguments(recipe, folder, len(prepared.dataset)),
        train_dataset=prepared.dataset,
        data_collator=prepared.collator,
        callbacks=[Lines(folder / "metrics.jsonl"), bar, Epochs()],
    )
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    open_folder(folder, recipe)
    for callback in _trackers(recipe.run, folder):
        trainer.add_callback(callback)
    started = time.monotonic()
    with Interrupt() as interrupt, closing(bar):
        trainer.add_callback(interrupt)
        trainer.train(resume_from_checkpoint=newest_checkpoint(folder) if recipe.run.resume else None)
    if is_first():
        add_seconds(folder, time.monotonic() - started)
    if interrupt.stopped:
        told = f"stopped at step {trainer.state.global_step}; go on with: latentlm train {folder} run.resume=true"
        raise KeyboardInterrupt(told)
    _save(trainer, recipe, folder, prepared)
    return folder


def training_arguments(recipe: Recipe, folder: Path, num_examples: int) -> TrainingArguments:
    """The recipe in the words of `transformers`."""
    optim, batch, run = recipe.optim, recipe.batch, recipe.run
    return TrainingArguments(
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
    )


def _save(trainer: LatentTrainer, recipe: Recipe, folder: Path, prepared: Prepared) -> None:
    """Leave a Hugging Face folder, adapters also merged, and the rank of its latents; every process takes part."""
    model: Any = trainer.model
    kept = folder / ("model" if recipe.model.lora is None else "adapter")
    trainer.save_model(str(kept))  # gathers what an engine has spread over processes
    if recipe.model.lora is not None:
        model = model.merge_and_unload()
    if is_first():
        if recipe.model.lora is not None:
            model.save_pretrained(folder / "model")
        (kept / "training_args.bin").unlink(missing_ok=True)  # run.json and recipe.yaml say it in words
        prepared.save(folder / "model")
    profile = rank_over_depth(model, prepared.sample())
    if is_first():
        write_json(folder / "depth.json", profile)


def _trackers(run: Run, folder: Path) -> list[TrainerCallback]:
    """Tensorboard's own place would be deep inside the checkpoints."""
    if "tensorboard" not in run.report_to:
        return []
    from torch.utils.tensorboard import SummaryWriter

    return [TensorBoardCallback(SummaryWriter(folder / "tensorboard"))]


def _check_trackers(run: Run) -> None:
    for name in run.report_to:
        if find_spec(name) is None:
            raise ConfigError(f"run.report_to: {name} is not installed; pip install {name}")
