"""What latent terms add to a training step: time, memory, and what their arithmetic alone would cost.

    python scripts/bench/step.py [--shape small | smollm2] [--batch 32 --length 64 --rounds 15 --threads 1] [--sweep]

Baseline: the plain Hugging Face step of the same model (forward with labels, backward, AdamW). The column FLOPs is
1 + FLOPs of the heads / FLOPs of the model at the tapped positions; attention of the model is counted over whole rows.
"""

import argparse
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
    same_loss,
    start,
    twin,
)
from torch import Tensor, nn

from latentlm import get_latent_model
from latentlm.attach.forward_io import ForwardInputs
from latentlm.attach.state import latent_state
from latentlm.config.catalog import read_recipe

DEPTHS = (1 / 4, 1 / 2, 3 / 4)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--sweep", action="store_true", help="also over length and width")
    args = start(parser)
    methods(args)
    ladder(args)
    if args.sweep:
        sweep(args)


def methods(args: argparse.Namespace) -> None:
    """Recipes against the plain step, and one of them against the way without latentlm."""
    recipe = read_recipe("next_latent")["objective"]
    every, never = {**recipe, "monitor_every": 1}, {**recipe, "monitor_every": 0}
    arms = [
        Arm("plain", partial(plain, args), 1.0),
        attached("attached, no terms", {"lm_weight": 1.0}, args),
        attached("next_latent", recipe, args),
        attached("next_latent, counted by the trainer", recipe, args, counted=True),
        attached("next_latent, monitored at each step", every, args),
        attached("next_latent, never monitored", never, args),
        Arm("next_latent by hand, output_hidden_states", partial(by_hand, args), attached("", recipe, args).theory),
        attached("nitp", read_recipe("nitp")["objective"], args),
    ]
    same_loss([arms[2], arms[6]], partial(plain_model, args.shape), args)
    found = compare("methods", arms, lambda: plain_model(args.shape), args)
    cost = median(ratios(found["cpu"], "next_latent, monitored at each step", "plain"))
    cost -= median(ratios(found["cpu"], "next_latent, never monitored", "plain"))
    print(f"the monitor, once in 50 steps, adds {cost / 50:+.4f} to the ratio of the mean step")


def ladder(args: argparse.Namespace) -> None:
    """Growth with the number of levels; each of them predicts the data and all levels, as in levels."""
    # as many blocks as the tallest ladder has rungs
    layers = max(8, plain_config(args.shape).num_hidden_layers)
    base = partial(plain_model, args.shape, num_hidden_layers=layers)
    arms = [Arm("plain", partial(plain, args), 1.0)]
    for count in (1, 2, 4, 8):
        depths = [f"{i}/{count}" for i in range(1, count + 1)]
        term = {"kind": "levels", "sources": depths, "targets": ["data", *depths], "weight": 0.3}
        arms.append(attached(f"levels, {count}", {"terms": {"ladder": term}}, args, num_hidden_layers=layers))
    found = compare(f"levels, {layers} blocks", arms, base, args)
    for place, arm in list(enumerate(arms))[2:]:
        before = arms[place - 1]
        extra = ratios(found["cpu"], arm.name, "plain"), ratios(found["cpu"], before.name, "plain")
        slopes = [(a - b) / (arm.theory - before.theory) for a, b in zip(*extra, strict=True)]
        print(
            f"{before.name} -> {arm.name}: CPU time grows {median(slopes):.2f} ({min(slopes):.2f}-{max(slopes):.2f}) "
            "times as fast as FLOPs"
        )


def sweep(args: argparse.Namespace) -> None:
    """Growth of next_latent with length and width."""
    config, recipe = plain_config(args.shape), read_recipe("next_latent")["objective"]
    sizes = [(args.length * factor // 2, 1.0) for factor in (1, 2, 4, 8)] + [(args.length, f) for f in (0.5, 2.0)]
    for length, factor in sizes:
        here = argparse.Namespace(**{**vars(args), "length": length, "no_memory": True})
        changes = {name: int(getattr(config, name) * factor) for name in ("hidden_size", "intermediate_size")}
        arms = [Arm("plain", partial(plain, here), 1.0), attached("next_latent", recipe, here, **changes)]
        compare(
            f"length {length}, width {changes['hidden_size']}", arms, partial(plain_model, args.shape, **changes), here
        )


def batch(args: argparse.Namespace, config: Any) -> dict[str, Tensor]:
    """Random ids, every position real."""
    ids = torch.randint(0, config.vocab_size, (args.batch, args.length), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "labels": ids.clone()}


def plain(args: argparse.Namespace, model: Any) -> tuple[Loss, list[nn.Parameter]]:
    """The step of a model without anything."""
    inputs = batch(args, model.config)
    return lambda: model(**inputs).loss, []


def attached(name: str, objective: dict, args: argparse.Namespace, counted: bool = False, **changes: Any) -> Arm:
    """An arm with latent terms; `counted` counts values ahead, as LatentTrainer does."""

    def build(model: Any) -> tuple[Loss, list[nn.Parameter]]:
        get_latent_model(model, objective)
        inputs, run = batch(args, model.config), latent_state(model)

        def loss() -> Tensor:
            if counted:
                run.steps.counts = model.latent.terms.counts(run.view({}, ForwardInputs.of(inputs)))
            return model(**inputs).loss

        return loss, list(model.latent.parameters())

    config = plain_config(args.shape, **changes)
    extra = apart(lambda: head_flops(get_latent_model(plain_model(args.shape, **changes), objective), args), args)
    return Arm(name, build, 1 + extra / (3 * forward_flops(config, args.batch, args.length)))


def head_flops(model: Any, args: argparse.Namespace) -> float:
    """FLOPs of predictors and readouts, forward and backward, at the pairs of neighbours in each row."""
    terms, pairs = model.latent.terms, args.batch * (args.length - 1)
    weights = sum(weight.numel() for _, term in terms.items() for weight in term.parameters() if weight.dim() == 2)
    read = sum(
        getattr(term.spec, "target", None) is not None and term.spec.target.needs_lm_head for _, term in terms.items()
    )
    # the readout is frozen: its backward makes no gradient of the weights
    return pairs * (6 * weights + 4 * read * model.config.hidden_size * model.config.vocab_size)


def by_hand(args: argparse.Namespace, model: Any) -> tuple[Loss, list[nn.Parameter]]:
    """next_latent as one would write it: all hidden states of the output, heads outside the model."""
    inputs = batch(args, model.config)
    # with the recipe's own first weights, so that the losses can be compared
    recipe = get_latent_model(twin(model), "next_latent").latent.terms
    heads = nn.ModuleList(term.predictor.network for _, term in recipe.items())
    return partial(hand_loss, model, heads, inputs), list(heads.parameters())


def hand_loss(model: Any, heads: nn.ModuleList, inputs: dict[str, Tensor]) -> Tensor:
    output = model(**inputs, output_hidden_states=True)
    loss = output.loss
    for depth, head in zip(DEPTHS, heads, strict=True):
        # as latentlm rounds; the state is raw below the top
        state = output.hidden_states[int(depth * model.config.num_hidden_layers + 0.5)]
        goal = F.layer_norm(state[:, 1:].detach(), state.shape[-1:])
        loss = loss + 0.1 * F.smooth_l1_loss(head(state[:, :-1]), goal)
    return loss


if __name__ == "__main__":
    main()
