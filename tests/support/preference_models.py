"""Preference trainers on tiny models, and what their rows make of the terms by hand."""

import torch
from attached_models import attach
from datasets import Dataset
from tiny_models import VOCAB
from tiny_trainers import arguments, words
from trl import DPOConfig, GRPOConfig

from latentlm import LatentDPOTrainer, LatentGRPOTrainer
from latentlm.attach.state import latent_state


def ids(generator, low=2, high=7):
    length = int(torch.randint(low, high, (), generator=generator))
    return torch.randint(4, VOCAB, (length,), generator=generator).tolist()


def text(row):
    return " ".join(f"w{i}" for i in row)


def comparisons(count=8):
    generator = torch.Generator().manual_seed(3)
    names = {"prompt": "", "chosen": " ", "rejected": " "}
    return Dataset.from_list([{k: start + text(ids(generator)) for k, start in names.items()} for _ in range(count)])


def dpo(model, folder, callbacks=(), peft_config=None, cls=LatentDPOTrainer, **more):
    options = {"gradient_checkpointing": False, "bf16": False, "max_length": None, "disable_dropout": False}
    options |= {"train_sampling_strategy": "sequential", "gradient_accumulation_steps": 1}
    adapted = peft_config is not None or hasattr(model, "peft_config")
    return cls(
        model,
        args=arguments(folder, config=DPOConfig, **{**options, **more}),
        ref_model=None if adapted else attach(terms={}),
        train_dataset=comparisons(),
        processing_class=words(),
        callbacks=list(callbacks),
        peft_config=peft_config,
    )


def longest(completion_ids, **kwargs):
    return [float(sum(completion) % 7) for completion in completion_ids]


def grpo(model, folder, callbacks=(), peft_config=None, cls=LatentGRPOTrainer, **more):
    options = {"gradient_checkpointing": False, "bf16": False, "max_completion_length": 6, "num_generations": 4}
    options |= {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "disable_dropout": False}
    prompts = [text(ids(torch.Generator().manual_seed(n))) for n in range(4)]
    return cls(
        model,
        reward_funcs=longest,
        args=arguments(folder, config=GRPOConfig, **{**options, **more}),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=words(),
        callbacks=list(callbacks),
        peft_config=peft_config,
    )


def sampled(trainer):
    """Rows and labels of the completions that were generated last, on this rank."""
    rows, labels = [], []
    batch = trainer._buffered_inputs[0]
    for i in range(len(batch["prompt_ids"])):
        prompt = batch["prompt_ids"][i][batch["prompt_mask"][i] == 1].tolist()
        completion = batch["completion_ids"][i][batch["completion_mask"][i] == 1].tolist()
        rows.append(prompt + completion)
        labels.append([-100] * len(prompt) + completion)
    return rows, labels


def forward(model, rows, labels):
    """Some rows in one plain forward."""
    width = max(map(len, rows))
    pad = [[0] * (width - len(row)) for row in rows]
    return model(
        input_ids=torch.tensor([row + rest for row, rest in zip(rows, pad, strict=True)]),
        attention_mask=torch.tensor([[1] * len(row) + rest for row, rest in zip(rows, pad, strict=True)]),
        labels=torch.tensor([row + [-100] * len(rest) for row, rest in zip(labels, pad, strict=True)]),
    )


def by_hand(rows, labels, terms):
    """The terms of some rows, in a fresh copy of the model."""
    model = attach(terms=terms)
    forward(model, rows, labels)
    return latent_state(model).monitoring.metrics.means(torch.device("cpu"), lambda sums: sums)


def values(means):
    """Those of the terms alone."""
    return {key: value for key, value in means.items() if key.endswith("/value") and not key.startswith("data")}
