"""Trainers on tiny models: their arguments, and what a step leaves behind."""

from dataclasses import fields

import pytest
from attached_models import batch_of, documents, tapped_gradients
from checkpointing import arguments as checkpointing
from datasets import Dataset
from tiny_models import VOCAB
from transformers import TrainerCallback, TrainingArguments
from trl import SFTConfig, SFTTrainer

IN_ORDER = "train_sampling_strategy" in {field.name for field in fields(TrainingArguments)}
in_order = pytest.mark.skipif(not IN_ORDER, reason="transformers before 5.2 cannot take the rows in order")
SFT = {"bf16": False, "max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}


class Gradients(TrainerCallback):
    """Keeps what the last backward left at the tapped block."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.found = tapped_gradients(model)


def arguments(folder, kind="off", config=TrainingArguments, **more):
    common = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 1e-2,
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **checkpointing(kind != "off", use_reentrant=kind == "reentrant"),
    }
    options = common | (SFT if config is SFTConfig else {}) | more
    if not IN_ORDER:
        options.pop("train_sampling_strategy", None)  # shuffled by the seed: the same in all that are compared
    return config(**options)


def trainer_of(cls, model, folder, layout="right", kind="off", callbacks=(), arguments_more=None, **more):
    config = SFTConfig if issubclass(cls, SFTTrainer) else TrainingArguments
    more |= {"processing_class": words()} if config is SFTConfig else {}
    return cls(
        model,
        arguments(folder, kind, config, **(arguments_more or {})),
        callbacks=list(callbacks),
        **{
            "train_dataset": Dataset.from_list(documents()),
            "data_collator": lambda examples: batch_of(examples, layout),
            **more,
        },
    )


def words():
    """A tokenizer with a word for every id."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    vocabulary = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w3"))
    special = {"pad_token": "w0", "bos_token": "w1", "eos_token": "w2", "unk_token": "w3"}
    return PreTrainedTokenizerFast(tokenizer_object=vocabulary, **special)
