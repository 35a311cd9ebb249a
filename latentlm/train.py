"""From a recipe to a trained run folder: data, network, checks, and the loop, which is transformers'."""

import dataclasses
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import nn
from transformers import (
    PreTrainedConfig,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.integrations.integration_utils import TensorBoardCallback

from latentlm.callbacks import Bar, Epochs, Interrupt, Lines, console
from latentlm.config import ConfigError
from latentlm.data import Collator, encode_dataset
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
from latentlm.isolation import mixes_segments
from latentlm.network import build_model, build_tokenizer, read_config
from latentlm.recipe import Recipe, Run
from latentlm.trainer import LatentTrainer


def train(recipe: Recipe) -> Path:
    """Run a recipe and return its run folder.

    The folder holds recipe.yaml (resolved, itself valid), run.json (versions, commit, command), metrics.jsonl,
    checkpoints, model/ (a Hugging Face checkpoint with tokenizer), adapter/ where one was trained, and depth.json (rank
    of the latents at each depth).
    """
    folder = check_folder(recipe)
    if is_finished(folder, recipe):
        console.print(f"{folder} is finished; nothing to do")
        return folder
    _check_trackers(recipe.run)
    config = read_config(recipe)
    set_seed(recipe.optim.seed)
    documents = recipe.batch.pairs.mark(_documents(recipe))
    tokenizer = build_tokenizer(recipe.model, documents)
    documents = track(documents, "encoding", console=console, transient=True, disable=not console.is_terminal)
    pairs = recipe.batch.pairs
    dataset = encode_dataset(documents, tokenizer, recipe.batch.max_length, recipe.sets, pairs.read)
    collator = Collator(tokenizer.pad_token_id, recipe.sets, recipe.batch.layout, recipe.batch.row_length)
    _check_lengths(config, collator, dataset)
    model = build_model(recipe, config, tokenizer)
    _check_isolation(model, collator, dataset)
    bar = Bar(recipe.objective, folder)
    trainer = LatentTrainer(
        model=model,
        args=training_arguments(recipe, folder, len(dataset)),
        train_dataset=dataset,
        data_collator=collator,
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
    _save(trainer, recipe, folder, tokenizer)
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
        dataloader_num_workers=run.workers,
        activation_checkpointing=run.activation_checkpointing,
        torch_compile=run.compile,
        remove_unused_columns=False,
        dataloader_pin_memory=run.device == "auto" and torch.accelerator.is_available(),
        disable_tqdm=True,
    )


def _save(trainer: LatentTrainer, recipe: Recipe, folder: Path, tokenizer: Any) -> None:
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
        tokenizer.save_pretrained(folder / "model")
    profile = rank_over_depth(model, _sample(trainer.train_dataset, trainer.data_collator))
    if is_first():
        write_json(folder / "depth.json", profile)


def _sample(dataset: Any, collator: Any, num_tokens: int = 2048) -> dict:
    """Documents from all over the data, without lone spans: the same for every objective."""
    lengths = [len(ids) for ids in dataset["input_ids"]]
    step = max(1, round(sum(lengths) / num_tokens))
    where = range(0, len(lengths), step)
    return dataclasses.replace(collator, sets=())([dataset[i] for i in where])


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


def _documents(recipe: Recipe) -> list[dict]:
    try:
        documents = recipe.data.documents()
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"data.{error}") from error
    if not documents:
        raise ConfigError("data: there are no documents to train on; check the split and the filters")
    return documents


def _check_lengths(config: PreTrainedConfig, collator: Collator, dataset: Any) -> None:
    """Refuse what would stop the loop somewhere in the middle."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    longest = max(len(ids) for ids in dataset["input_ids"])
    if limit is not None and longest > limit:
        raise ConfigError(f"batch.max_length: a document has {longest} tokens, the model {limit} positions; lower it")
    if collator.row_length is not None and (longest := max(map(collator.length, dataset))) > collator.row_length:
        raise ConfigError(
            f"batch.row_length: {collator.row_length} is less than the {longest} tokens of the longest document "
            "with its lone spans; raise it, or lower batch.max_length"
        )


def _check_isolation(model: nn.Module, collator: Collator, dataset: Any) -> None:
    """Refuse to train a model that lets packed segments see each other."""
    if collator.layout == "rows" or not (collator.sets or collator.row_length or collator.layout == "flat"):
        return
    heads = [dataset[i]["input_ids"][:32] for i in (0, -1)]
    flat = collator.layout == "flat"
    pack = dataclasses.replace(collator, sets=(), row_length=None if flat else sum(map(len, heads)))
    # twice the same two documents: packed in two rows, because some attention isolates segments in a single row only
    batch = pack([{"input_ids": ids, "labels": ids, "pairs": []} for ids in heads * 2])
    if mixes_segments(model, batch):
        other = "" if flat else ", with flash attention flat"
        raise ConfigError(f"batch.layout: this model mixes packed segments; use batch.layout=rows{other}")
