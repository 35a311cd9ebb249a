"""From a recipe to a trained run folder: data, network, checks, and the loop, which is transformers'."""

import time
from contextlib import closing, nullcontext
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, set_seed
from transformers.integrations.integration_utils import TensorBoardCallback

from latentlm.attach.rank_profile import rank_over_depth
from latentlm.config.schema import ConfigError
from latentlm.experiment.build_model import build_model, read_config
from latentlm.experiment.build_trainer import build_trainer, check_best_metric, training_arguments
from latentlm.experiment.callbacks import Bar, Epochs, Interrupt, Lines, console
from latentlm.experiment.datasets import Prepared
from latentlm.experiment.mixtures import prepare_data
from latentlm.experiment.recipe import Recipe
from latentlm.experiment.run_dir import (
    add_seconds,
    check_folder,
    is_finished,
    is_first,
    open_folder,
    resume_point,
)
from latentlm.experiment.run_lock import only_writer
from latentlm.whole_files import whole_folder, write_json


def train(recipe: Recipe) -> Path:
    """Run a recipe and return its run folder.

    The folder holds recipe.yaml (resolved, itself valid), run.json (versions, commit, command), metrics.jsonl,
    checkpoints, model/ (a Hugging Face checkpoint with tokenizer or image processor), adapter/ where one was trained,
    and depth.json (rank of the latents at each depth).
    """
    folder = check_folder(recipe)
    with only_writer(folder) if is_first() else nullcontext():
        check_folder(recipe)  # whoever held it until now may have begun a run
        return _train(recipe, folder)


def _train(recipe: Recipe, folder: Path) -> Path:
    if is_finished(folder, recipe):
        console.print(f"{folder} is finished; nothing to do")
        return folder
    _check_trackers(recipe)
    training_arguments(recipe, folder)  # before anything is loaded
    config = read_config(recipe)
    set_seed(recipe.training["seed"])
    prepared = prepare_data(recipe, config)
    check_best_metric(recipe, prepared)
    model = build_model(recipe, config, prepared.tokenizer)
    prepared.check(model)
    bar = Bar(recipe.objective, folder)
    trainer = build_trainer(recipe, folder, prepared, model)
    for callback in (Lines(folder / "metrics.jsonl"), bar, Epochs()):
        trainer.add_callback(callback)
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    resume = recipe.training.get("resume_from_checkpoint")
    checkpoint, lines = (resume, []) if isinstance(resume, str) else resume_point(folder) if resume else (None, [])
    for line in lines if is_first() else ():
        console.print(line)
    open_folder(folder, recipe)
    for callback in _trackers(recipe, folder):
        trainer.add_callback(callback)
    started = time.monotonic()
    with Interrupt() as interrupt, closing(bar):
        trainer.add_callback(interrupt)
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
        except UnpicklingError as error:
            told = (
                "one of its .pt and .pth files holds more than tensors; nothing in it was executed; remove the folder"
            )
            raise ValueError(f"{checkpoint}: {told}") from error
    if is_first():
        add_seconds(folder, time.monotonic() - started)
    if interrupt.stopped:
        again = f"latentlm train {folder} training.resume_from_checkpoint=true"
        raise KeyboardInterrupt(f"stopped at step {trainer.state.global_step}; continue with: {again}")
    _save(trainer, recipe, folder, prepared)
    return folder


def _save(trainer: Trainer, recipe: Recipe, folder: Path, prepared: Prepared) -> None:
    """Leave a Hugging Face folder, adapters also merged, and the rank of its latents; every process takes part."""
    model: Any = trainer.model
    first, is_adapter = is_first(), recipe.model.lora is not None
    with whole_folder(folder / ("adapter" if is_adapter else "model"), owner=first) as kept:
        trainer.save_model(str(kept))  # gathers what an engine has spread over processes
        if first:
            (kept / "training_args.bin").unlink(missing_ok=True)  # run.json and recipe.yaml say it in words
            if not is_adapter:
                prepared.save(kept)
    if is_adapter:
        model = model.float().merge_and_unload()  # in half precision a small update is rounded away
        if first:
            with whole_folder(folder / "model") as kept:
                model.save_pretrained(kept)
                prepared.save(kept)
    profile = rank_over_depth(model, prepared.sample())
    if first:
        write_json(folder / "depth.json", profile)


def _trackers(recipe: Recipe, folder: Path) -> list[TrainerCallback]:
    """Tensorboard's own place would be deep inside the checkpoints."""
    if "tensorboard" not in _named(recipe):
        return []
    from torch.utils.tensorboard import SummaryWriter

    return [TensorBoardCallback(SummaryWriter(folder / "tensorboard"))]


def _check_trackers(recipe: Recipe) -> None:
    known = ("tensorboard", "trackio", "wandb")
    for name in _named(recipe):
        if name in known and find_spec(name) is None:
            raise ConfigError(f"training.report_to: {name} is not installed; pip install {name}")


def _named(recipe: Recipe) -> list[str]:
    names = recipe.training["report_to"]
    return [names] if isinstance(names, str) else list(names or ())
