"""Tiny models with latent heads, batches in every layout, and what a step of training makes of them."""

from functools import partial

import torch
from checkpointing import recompute
from tiny_models import VOCAB, build
from torch import Tensor, nn

from latentlm import get_latent_model
from latentlm.attach.state import latent_state

NEXT = {"kind": "next"}
SMOOTH = {"kind": "smooth_l1"}
DEEP_TO_SHALLOW = {
    "kind": "predict",
    "source": {"depth": 1},
    "target": {"kind": "online", "tap": {"depth": "1/4", "at": NEXT}},
    "predictor": {"kind": "swiglu", "hidden": "1x"},
    "loss": {"kind": "cosine"},
}
NEXT_STATE = {
    "kind": "predict",
    "source": {"depth": "1/2"},
    "target": {"kind": "online", "tap": {"depth": "1/2", "at": NEXT}, "normalize": "layer"},
    "loss": SMOOTH,
}
SLOW = {
    "kind": "predict",
    "source": {"depth": "1/2"},
    "target": {"kind": "ema", "tap": {"depth": "3/4", "at": NEXT}, "momentum": 0.9},
    "loss": SMOOTH,
}
POINTWISE = {"next_state": NEXT_STATE, "deep_to_shallow": DEEP_TO_SHALLOW, "slow": SLOW}
LAST_TO_LAST = {
    "kind": "predict",
    "source": {"depth": "1/2", "at": {"kind": "last"}},
    "target": {"kind": "online", "tap": {"depth": 1, "at": {"kind": "last"}}},
    "loss": {"kind": "info_nce"},
}
NORMAL = {
    "kind": "regularize",
    "source": {"depth": "1/2"},
    "loss": {"kind": "sigreg", "num_slices": 8},
    "sample_axis": "positions",
}
TAPPED = 1  # block whose output is the state at depth 1/2 of 4 blocks


def attach(name: str = "llama", terms: dict | None = None, seed: int = 0, monitor: int = 0, **overrides) -> nn.Module:
    """A tiny model in training mode with heads."""
    model = build(name, seed, **overrides)
    return get_latent_model(model, {"terms": POINTWISE if terms is None else terms, "monitor_every": monitor}).train()


def documents(lengths: tuple[int, ...] = (12, 5, 9, 7), seed: int = 0) -> list[dict]:
    """Random ids; every third label is masked and the first one always."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(3, VOCAB, (length,), generator=generator).tolist() for length in lengths]
    return [{"input_ids": ids, "labels": [-100 if i % 3 == 0 else x for i, x in enumerate(ids)]} for ids in rows]


def batch_of(examples: list[dict], layout: str = "right") -> dict[str, Tensor]:
    """The examples padded right or left with a mask, or packed into one row with positions that restart."""
    if layout == "packed":
        ids, labels, places = ([], [], [])
        for example in examples:
            ids += example["input_ids"]
            labels += [-100, *example["labels"][1:]]
            places += range(len(example["input_ids"]))
        return {
            "input_ids": torch.tensor([ids]),
            "labels": torch.tensor([labels]),
            "position_ids": torch.tensor([places]),
        }
    width = max(len(example["input_ids"]) for example in examples)
    fill = {"input_ids": 0, "labels": -100, "attention_mask": 0}
    rows = {key: [] for key in fill}
    for example in examples:
        values = example | {"attention_mask": [1] * len(example["input_ids"])}
        for key, blank in fill.items():
            pad = [blank] * (width - len(values[key]))
            rows[key].append(pad + values[key] if layout == "left" else values[key] + pad)
    return {key: torch.tensor(value) for key, value in rows.items()}


def tapped_gradients(model: nn.Module) -> list[Tensor]:
    """Gradients of the trained weights in the tapped block."""
    weights = [w for w in latent_state(model).backbone.layers[TAPPED].parameters() if w.requires_grad]
    assert weights
    return [weight.grad.clone() for weight in weights]


def head_weights(model: nn.Module) -> list[Tensor]:
    """Copies of the trained weights of the heads."""
    return [weight.detach().clone() for weight in latent_state(model).model.latent.terms.parameters()]


def lora(model: nn.Module, heads: bool = True, **more) -> nn.Module:
    """The model under LoRA, with a second matrix that is not zero so that every gradient shows."""
    from peft import LoraConfig, get_peft_model

    from latentlm import latent_lora_config

    torch.manual_seed(0)
    make = latent_lora_config if heads else partial(LoraConfig, task_type="CAUSAL_LM")
    model = get_peft_model(model, make(r=4, target_modules="all-linear", **more))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.02)
    return model


def checkpointed(model: nn.Module, kind: str) -> nn.Module:
    """With activation checkpointing, by name of the kind."""
    if kind != "off":
        recompute(model, use_reentrant=kind == "reentrant")
        model.enable_input_require_grads()
    return model
