"""From a recipe to a trained run folder: tokenizer, model, heads, data, trainer; the loop is Hugging Face's."""

import json
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PrinterCallback,
    ProgressCallback,
    TrainingArguments,
    set_seed,
)

from latentlm.callbacks import Bar, Interrupt, Lines
from latentlm.config import ConfigError
from latentlm.data import Collator, bpe_tokenizer, encode_dataset, word_tokenizer
from latentlm.depth import rank_over_depth
from latentlm.isolation import mixes_segments
from latentlm.model import get_latent_model
from latentlm.recipe import Model, Recipe, Words, save_recipe
from latentlm.trainer import LatentTrainer

PACKAGES = ("latentlm", "torch", "transformers", "accelerate", "peft", "trl", "datasets")


def train(recipe: Recipe, name: str = "run") -> Path:
    """Run a recipe and return its run folder.

    The folder holds recipe.yaml (resolved, itself valid), run.json (versions, commit, command), metrics.jsonl,
    checkpoints, model/ (a Hugging Face checkpoint with tokenizer) and depth.json (rank of the latents at each depth).
    """
    folder = Path(recipe.run.dir or Path("runs") / name)
    _check_folder(folder, recipe)
    _check_depths(recipe)
    set_seed(recipe.optim.seed)
    documents = recipe.data.documents()
    if not documents:
        raise ConfigError("data: there are no documents to train on; check the split and the filters")
    tokenizer = build_tokenizer(recipe.model, documents)
    dataset = encode_dataset(documents, tokenizer, recipe.batch.max_length, recipe.sets)
    model = build_model(recipe, tokenizer)
    collator = Collator(tokenizer.pad_token_id, recipe.sets, recipe.batch.layout, recipe.batch.row_length)
    _check_isolation(model, collator, dataset, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    save_recipe(recipe, folder / "recipe.yaml")
    interrupt = Interrupt()
    trainer = LatentTrainer(
        model=model,
        args=training_arguments(recipe, folder, len(dataset)),
        train_dataset=dataset,
        data_collator=collator,
        callbacks=[Lines(folder / "metrics.jsonl"), Bar(), interrupt],
    )
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    started = time.time()
    checkpoints = any((folder / "checkpoints").glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=recipe.run.resume and checkpoints)
    if interrupt.pressed:
        raise KeyboardInterrupt(
            f"stopped at step {trainer.state.global_step}; go on with run.dir={folder} run.resume=true"
        )
    if trainer.is_world_process_zero():
        _write_json(folder / "run.json", _origin() | {"seconds": round(time.time() - started, 1)})
    finished = _merged(trainer.model)
    if trainer.is_world_process_zero():
        finished.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        examples = [dataset[i] for i in range(min(256, len(dataset)))]
        profile = rank_over_depth(finished, collator(examples) if examples else {})
        _write_json(folder / "depth.json", profile)
    return folder


def build_tokenizer(model: Model, documents: list[dict]) -> Any:
    """The model's own tokenizer, or one fitted on the documents."""
    if model.name is None:
        texts = [document["text"] if "text" in document else str(document) for document in documents]
        return (
            word_tokenizer(texts)
            if isinstance(model.tokenizer, Words)
            else bpe_tokenizer(texts, model.tokenizer.vocab_size)
        )
    tokenizer = AutoTokenizer.from_pretrained(model.name, trust_remote_code=model.trust_remote_code)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                f"model.name: the tokenizer of {model.name} has neither pad nor eos; set tokenizer.pad_token"
            )
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked by segment, never by id
    return tokenizer


def build_model(recipe: Recipe, tokenizer: Any) -> nn.Module:
    """The network with heads, and adapters where the recipe has them."""
    spec = recipe.model
    common: dict[str, Any] = {"dtype": getattr(torch, spec.dtype)}
    if spec.attn_implementation:
        common["attn_implementation"] = spec.attn_implementation
    if spec.name is None:
        config = dict(spec.config)
        ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
        config = AutoConfig.for_model(**{"vocab_size": len(tokenizer), **ids, **config})
        model = AutoModelForCausalLM.from_config(config, **common)
    else:
        model = AutoModelForCausalLM.from_pretrained(spec.name, trust_remote_code=spec.trust_remote_code, **common)
    get_latent_model(model, recipe.objective, layers_path=spec.layers_path, seed=recipe.optim.seed)
    if spec.lora is None:
        return model
    from peft import get_peft_model

    return get_peft_model(model, latent_lora_config(**_lora(spec)))


def latent_lora_config(**kwargs: Any) -> Any:
    """A `peft.LoraConfig` that trains and saves the heads in full and puts no adapter on them."""
    from peft import LoraConfig

    defaults = {"task_type": "CAUSAL_LM", "exclude_modules": r"(.*\.)?latent\..*", "modules_to_save": ["latent"]}
    return LoraConfig(**{**defaults, **kwargs})


def _lora(spec: Model) -> dict[str, Any]:
    assert spec.lora is not None
    targets = spec.lora.target_modules
    return {
        "r": spec.lora.rank,
        "lora_alpha": spec.lora.alpha,
        "lora_dropout": spec.lora.dropout,
        "target_modules": targets if isinstance(targets, str) else list(targets),
    }


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
        lr_scheduler_type=optim.schedule,
        warmup_steps=optim.warmup,
        seed=optim.seed,
        bf16=optim.precision == "bf16",
        logging_steps=run.log_every,
        save_strategy="steps" if run.save_every else "no",
        save_steps=run.save_every or 500,
        save_total_limit=run.keep,
        report_to=list(run.report_to) or "none",
        use_cpu=run.device == "cpu",
        dataloader_num_workers=run.workers,
        activation_checkpointing=run.activation_checkpointing,
        torch_compile=run.compile,
        remove_unused_columns=False,
        dataloader_pin_memory=run.device == "auto" and torch.accelerator.is_available(),
        disable_tqdm=not sys.stderr.isatty(),
    )


def _check_folder(folder: Path, recipe: Recipe) -> None:
    """Refuse to write over anything."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"run.dir: {folder} is a file; use another run.dir=PATH")
    if (folder / "recipe.yaml").exists() and not recipe.run.resume:
        raise ConfigError(f"run.dir: {folder} already holds a run; use run.resume=true or another run.dir=PATH")


def _check_depths(recipe: Recipe) -> None:
    """Refuse depths that the network does not have before its weights are loaded."""
    spec = recipe.model
    try:
        if spec.name is None:
            config = AutoConfig.for_model(**spec.config)
        else:
            config = AutoConfig.from_pretrained(spec.name, trust_remote_code=spec.trust_remote_code)
    except (OSError, ValueError) as error:
        key = "model.config" if spec.name is None else "model.name"
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
    num_layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if num_layers is not None:
        recipe.objective.expand(num_layers)


def _check_isolation(model: nn.Module, collator: Collator, dataset: Dataset, recipe: Recipe) -> None:
    """Refuse to train a model that lets packed segments see each other."""
    if recipe.batch.layout == "packed" and mixes_segments(
        model, collator([dataset[i] for i in range(min(4, len(dataset)))])
    ):
        raise ConfigError("batch.layout: this model mixes packed segments; use batch.layout=rows")


def _merged(model: nn.Module) -> Any:
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model  # type: ignore[operator]


def _origin() -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    return {
        "command": " ".join(["latentlm", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "commit": commit.stdout.strip() or None,
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads, {torch.cuda.device_count()} GPUs",
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
    }


def _write_json(path: Path, data: dict) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
