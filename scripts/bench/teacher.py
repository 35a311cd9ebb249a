"""What an EMA teacher inside the model costs: time by depth of its target, and memory in full training and under LoRA.

    python scripts/bench/teacher.py [--shape small | smollm2] [--batch 32 --length 64 --rounds 15 --threads 1]

The teacher's forward stops at its deepest target and only weights up to there are copied. Against it: copy.deepcopy of
the model, a full forward, an average over all weights. Baseline: the plain Hugging Face step. The column FLOPs is
1 + FLOPs of the teacher's forward and of the head / FLOPs of the model's step.
"""

import argparse
import copy
import warnings
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from interleaved import (
    Arm,
    Loss,
    apart,
    compare,
    forward_flops,
    options,
    plain_config,
    plain_model,
    ratios,
    start,
    twin,
)
from step import batch
from torch import Tensor, nn

from latentlm import get_latent_model, latent_lora_config
from latentlm.attach.state import latent_state
from latentlm.components.teacher import Teacher

DEPTHS = ("1/4", "1/2", "1")
MOMENTUM = 0.99


def main() -> None:
    args = start(options(__doc__))
    apart(lambda: check(args), args)
    full(args)
    lora(args)


def full(args: argparse.Namespace) -> None:
    """All weights trained, so all of them up to the target are copied."""
    base = partial(plain_model, args.shape)
    config = plain_config(args.shape)
    forward = partial(forward_flops, config, args.batch, args.length)
    once = 3 * forward()
    head = 6 * args.batch * (args.length - 1) * config.hidden_size**2 / once
    arms = [
        Arm("plain", partial(plain, args), 1.0),
        Arm("no teacher, online target", partial(attached, args, objective("1", "online")), 1 + head),
    ]
    for depth in DEPTHS:
        blocks = rounded(depth, config.num_hidden_layers) / config.num_hidden_layers
        theory = 1 + head + forward(blocks, head=False) / once
        arms.append(Arm(f"ema, target at {depth}", partial(attached, args, objective(depth)), theory))
    theory = 1 + head + forward(1.0, head=False) / once
    arms.append(Arm("deepcopy, full forward", partial(deep_copied, args), theory))
    found = compare("ema of the whole model", arms, base, args)
    one = "no teacher, online target"
    for arm in arms[2:]:
        pairs = zip(ratios(found["cpu"], arm.name, "plain"), ratios(found["cpu"], one, "plain"), strict=True)
        extra = [ours - without for ours, without in pairs]
        print(
            f"{arm.name}: forward and averaging add {median(extra):.3f} ({min(extra):.3f}-{max(extra):.3f}) of a plain "
            f"step's CPU time; its forward is {arm.theory - 1 - head:.3f} of the FLOPs"
        )
    for depth in DEPTHS:
        print(
            f"ema, target at {depth}: {copied(attached_model(base(), objective(depth), args)):.3f} of the model copied"
        )


def lora(args: argparse.Namespace) -> None:
    """Only adapters trained, so only adapters are copied."""
    base = partial(plain_model, args.shape)
    arms = [
        Arm("LoRA alone", partial(adapted, args, None)),
        Arm("LoRA, online target", partial(adapted, args, objective("1", "online"))),
        Arm("LoRA, ema, target at 1", partial(adapted, args, objective("1"))),
    ]
    compare("ema under LoRA, rank 8", arms, base, args)

    def share() -> float:
        model = with_adapters(get_latent_model(base(), objective("1")))
        model(**batch(args, model.config))
        return copied(model)

    print(f"LoRA, ema, target at 1: {apart(share, args):.4f} of the model copied")


def objective(depth: str, kind: str = "ema") -> dict:
    """The top predicts a depth at the next position."""
    target = {"kind": kind, "tap": {"depth": depth, "at": "next"}, "normalize": "layer"}
    target |= {"momentum": MOMENTUM} if kind == "ema" else {}
    term = {"kind": "predict", "source": {"depth": "1"}, "target": target, "loss": {"kind": "smooth_l1"}}
    return {"monitor_every": 0, "terms": {"next": term}}


def plain(args: argparse.Namespace, model: Any) -> tuple[Loss, list[nn.Parameter]]:
    inputs = batch(args, model.config)
    return lambda: model(**inputs).loss, []


def attached(args: argparse.Namespace, terms: dict, model: Any) -> tuple[Loss, list[nn.Parameter]]:
    get_latent_model(model, terms)
    inputs = batch(args, model.config)
    return lambda: model(**inputs).loss, list(model.latent.parameters())


def attached_model(model: Any, terms: dict, args: argparse.Namespace) -> Any:
    """A model whose teacher has taken its first copies."""
    get_latent_model(model, terms)(**batch(args, model.config))
    return model


def adapted(args: argparse.Namespace, terms: dict | None, model: Any) -> tuple[Loss, list[nn.Parameter]]:
    model = with_adapters(get_latent_model(model, terms) if terms else model)
    inputs = batch(args, model.config)
    return lambda: model(**inputs).loss, [weight for weight in model.parameters() if weight.requires_grad]


def with_adapters(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft 0.21 on transformers 5.23
    options = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
    heads = hasattr(model, "latent")
    config = latent_lora_config(**options) if heads else LoraConfig(task_type="CAUSAL_LM", **options)
    return get_peft_model(model, config).train()


def deep_copied(args: argparse.Namespace, model: Any) -> tuple[Loss, list[nn.Parameter]]:
    """The same objective with target at the top, as one would write it; the top's raw state is read by a hook."""
    teacher, head = copy.deepcopy(model).eval().requires_grad_(False), nn.Linear(*[model.config.hidden_size] * 2)
    return partial(deep_loss, model, teacher, head, batch(args, model.config)), list(head.parameters())


def deep_loss(model: Any, teacher: Any, head: nn.Module, inputs: dict[str, Tensor], depth: str = "1") -> Tensor:
    with torch.no_grad():
        for slow, fast in zip(teacher.parameters(), model.parameters(), strict=True):
            slow.lerp_(fast, 1 - MOMENTUM)
    read: dict[str, Tensor] = {}

    def keep(name: str):
        def store(layer: nn.Module, args: tuple, output: Tensor) -> None:
            read[name] = output

        return store

    block = teacher.model.layers[rounded(depth, model.config.num_hidden_layers) - 1]
    hooks = [
        model.model.layers[-1].register_forward_hook(keep("source")),
        block.register_forward_hook(keep("target")),
    ]
    with torch.no_grad():
        teacher.model(inputs["input_ids"], use_cache=False)
    output = model(**inputs)
    for hook in hooks:
        hook.remove()
    goal = F.layer_norm(read["target"][:, 1:], read["target"].shape[-1:])
    return output.loss + F.smooth_l1_loss(head(read["source"][:, :-1]), goal)


def check(args: argparse.Namespace) -> None:
    """Two steps apart, the copy inside and the deep copy give the same loss at each depth."""
    for depth in DEPTHS:
        base = plain_model(args.shape)
        ours, teacher, inputs = twin(base), copy.deepcopy(base).eval().requires_grad_(False), batch(args, base.config)
        get_latent_model(ours, objective(depth))
        (head,) = (each.network for each in (term.predictor for _, term in ours.latent.terms.items()))
        ours(**inputs)  # takes the first copies
        with torch.no_grad():
            for weight in base.parameters():
                weight.add_(0.05 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)))
        values = [float(loss.detach()) for loss in (ours(**inputs).loss, deep_loss(base, teacher, head, inputs, depth))]
        assert abs(values[0] - values[1]) < 1e-5 * max(1, abs(values[0])), values
        print(f"target at {depth}: loss {values[0]:.6f}, with a deep copy {values[1]:.6f}")


def copied(model: Any) -> float:
    """Size of the teacher's buffers relative to the weights of the model without heads."""
    latent = latent_state(model).model.latent
    teachers = [module for module in latent.modules() if isinstance(module, Teacher)]
    own = {id(weight) for weight in latent.parameters()}
    # adapters are no part of the model either
    weights = [w for n, w in model.named_parameters() if id(w) not in own and "lora_" not in n]
    return size(b for teacher in teachers for b in teacher.buffers()) / size(weights)


def size(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def rounded(depth: str, layers: int) -> int:
    numerator, _, denominator = depth.partition("/")
    return int(float(numerator) / float(denominator or 1) * layers + 0.5)


if __name__ == "__main__":
    main()
