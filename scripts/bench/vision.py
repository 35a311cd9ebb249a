"""What latentlm costs a ViT's training step, against the same method written plainly, and with lightly's loss.

    python scripts/bench/vision.py [--batch 64 --rounds 8 --threads 1]

Each comparison first checks that all its arms have the same loss (relative 1e-5). Baseline: transformers' ViT and the
method as one would write it in a loop. lightly's arm is there where it is installed: `pip install --no-deps lightly`.
"""

import argparse
import copy
import importlib.util
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from interleaved import Arm, Loss, compare, machine, same_loss, twin
from losses_vs_lightly import lightly_losses
from torch import Tensor, nn
from transformers import ViTModel

from latentlm import get_latent_model, latent_state
from latentlm.experiment.build_model import read_config
from latentlm.experiment.datasets import prepare
from latentlm.experiment.recipe import Recipe, load_recipe

Built = tuple[Loss, list[nn.Parameter]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64, help="images")
    parser.add_argument("--rounds", type=int, default=8, help="timed steps of each arm")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-memory", action="store_true", help="skip the peak memory, which runs each arm once more")
    args = parser.parse_args()
    if min(args.batch, args.rounds, args.threads) < 1 or args.batch < 2:
        parser.error("--batch: at least 2; --rounds, --threads: at least 1")
    print(machine(args.threads))
    extra = {"lightly's loss": lightly_vicreg} if importlib.util.find_spec("lightly") else {}
    local = "data.views={num: 2, scale: [0.4, 1.0], local: 6}"
    for name, plain, words in (
        ("mae", {"written plainly": plain_mae}, ()),
        ("vicreg", {"written plainly": plain_vicreg, **extra}, ()),
        ("dino", {"written plainly": plain_dino}, (local,)),
        ("ijepa", {"written plainly": plain_ijepa}, ()),
    ):
        bench(name, plain, words, args)


def bench(name: str, plain: dict[str, Any], words: Sequence[str], args: argparse.Namespace) -> None:
    """The recipe's step and the others, on one batch of scenes."""
    size = f"training.per_device_train_batch_size={args.batch}"
    recipe = load_recipe(name, [size, "data.source.num_train=256", *words])
    config: Any = read_config(recipe)
    prepared = prepare(recipe, config)
    batch = prepared.collator(prepared.dataset.__getitems__(range(args.batch)))

    def base() -> nn.Module:
        torch.manual_seed(0)
        return ViTModel(config, add_pooling_layer=False).train()

    arms = [Arm(title, partial(build, recipe, batch)) for title, build in plain.items()]
    arms.append(Arm("latentlm", lambda model: attached(recipe, batch, model)))
    same_loss(arms, base, args)
    times = compare(f"{name}: {args.batch} images, {args.rounds} rounds", arms, base, args)["cpu"]
    rates = (f"{arm} {args.batch / median(seconds):.0f}" for arm, seconds in times.items())
    print("images a CPU second: " + ", ".join(rates))


def attached(recipe: Recipe, batch: dict, model: Any) -> Built:
    get_latent_model(model, recipe.objective)
    latent_state(model).steps.total = recipe.training["max_steps"]  # of the teacher's momentum
    return lambda: model(**batch).loss, list(model.latent.parameters())


def heads_of(recipe: Recipe, model: Any) -> Any:
    """The heads that latentlm would draw: the arms can then be compared in value."""
    other = twin(model)
    get_latent_model(other, recipe.objective)
    return other.latent


def plain_mae(recipe: Recipe, batch: dict, model: Any) -> Built:
    """Embed, gather what is seen, run the blocks, decode what is hidden, compare with pixels normalised by patch."""
    (decoder,) = (term.predictor for _, term in heads_of(recipe, model).terms.items())
    size = model.config.patch_size
    side = model.config.image_size // size
    hidden, keep = batch["latent"]["masked"][:, 0] - 1, batch["latent"]["keep"]
    rows = torch.arange(len(keep))[:, None]
    there = torch.ones(keep.shape, dtype=torch.bool)
    place = partial(torch.stack, dim=-1)

    def loss() -> Tensor:
        state = model.embeddings(batch["pixel_values"])
        state = torch.cat([state[:, :1], state[:, 1:][rows, keep]], 1)
        for block in model.layers:
            state = block(state)
        seen = model.layernorm(state)[:, 1:]
        where, wanted = (place([each // side, each % side]) for each in (keep, hidden))
        guess = decoder.out(decoder.trunk(seen, there, where, wanted, torch.ones_like(hidden, dtype=torch.bool)))
        pieces = batch["pixel_values"].unflatten(3, (side, size)).unflatten(2, (side, size))  # b c rows h columns w
        patches = pieces.permute(0, 2, 4, 3, 5, 1).flatten(1, 2).flatten(2)[rows, hidden]
        variance, mean = torch.var_mean(patches, -1, keepdim=True)
        return F.mse_loss(guess, (patches - mean) * (variance + 0.01).rsqrt())

    return loss, list(decoder.parameters())


def projected(recipe: Recipe, batch: dict, model: Any) -> tuple[Any, list[nn.Parameter]]:
    """A function that gives both crops' projections."""
    head = heads_of(recipe, model).terms.heads["projection"]

    def run() -> tuple[Tensor, Tensor]:
        z = head(model(batch["pixel_values"]).last_hidden_state[:, 0])
        return z[0::2], z[1::2]

    return run, list(head.parameters())


def plain_vicreg(recipe: Recipe, batch: dict, model: Any) -> Built:
    """25 mse + 25 mean of the variance hinges + covariances off the diagonal."""
    run, weights = projected(recipe, batch, model)

    def spread(z: Tensor) -> tuple[Tensor, Tensor]:
        z = z - z.mean(0)
        covariance = z.T @ z / (len(z) - 1)
        off = covariance.square().sum() - covariance.diagonal().square().sum()
        return F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean(), off / z.shape[1]

    def loss() -> Tensor:
        a, b = run()
        (hinge_a, off_a), (hinge_b, off_b) = spread(a), spread(b)
        return 25 * F.mse_loss(a, b) + 25 * (hinge_a + hinge_b) / 2 + off_a + off_b

    return loss, weights


def lightly_vicreg(recipe: Recipe, batch: dict, model: Any) -> Built:
    run, weights = projected(recipe, batch, model)
    loss = lightly_losses().VICRegLoss()
    return lambda: loss(*run()), weights


def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    with torch.no_grad():
        for old, new in zip(slow.parameters(), fast.parameters(), strict=True):
            old.lerp_(new, 1 - momentum)


def plain_dino(recipe: Recipe, batch: dict, model: Any) -> Built:
    """Class tokens of all crops against the centred prototypes of a slow copy's global crops, but of the same crop."""
    head = heads_of(recipe, model).terms.heads["prototypes"]
    slow, slow_head = (copy.deepcopy(each).eval().requires_grad_(False) for each in (model, head))
    images, views, shown = len(batch["pixel_values"]) // 8, 8, 2
    center = torch.zeros(512)
    others = ~torch.eye(views, shown, dtype=torch.bool)

    def loss() -> Tensor:
        follow(slow, model, 0.99)
        follow(slow_head, head, 0.99)
        pixels = batch["pixel_values"]
        logits = head(model(pixels).last_hidden_state[:, 0]).unflatten(0, (images, views))
        with torch.no_grad():
            taught = pixels.unflatten(0, (images, views))[:, :shown].flatten(0, 1)
            wanted = slow_head(slow(taught).last_hidden_state[:, 0]).unflatten(0, (images, shown))
            share = ((wanted - center) / 0.04).softmax(-1)
            center.lerp_(wanted.flatten(0, 1).mean(0), 0.1)
        cross = -torch.einsum("iok,ivk->ivo", share, (logits / 0.1).log_softmax(-1))
        return cross[:, others].mean()

    return loss, list(head.parameters())


def plain_ijepa(recipe: Recipe, batch: dict, model: Any) -> Built:
    """Run the blocks on the context, predict the slow copy's states of each hidden block from it, smooth L1."""
    (decoder,) = (term.predictor for _, term in heads_of(recipe, model).terms.items())
    slow = copy.deepcopy(model).eval().requires_grad_(False)
    side = model.config.image_size // model.config.patch_size
    keep, hidden = batch["latent"]["keep"], batch["latent"]["masked"] - 1  # -1, -2: there is none
    rows, num = torch.arange(len(keep))[:, None], hidden.shape[1]
    there, asked = keep >= 0, (hidden >= 0).flatten(0, 1)
    kept, goals = keep.clamp(min=0), hidden.clamp(min=0)
    seen_by = F.pad(there, (1, 0), value=True)[:, None, None]
    place = partial(torch.stack, dim=-1)

    def loss() -> Tensor:
        follow(slow, model, 0.99)
        state = model.embeddings(batch["pixel_values"])
        state = torch.cat([state[:, :1], state[:, 1:][rows, kept]], 1)
        for block in model.layers:
            state = block(state, attention_mask=seen_by)
        seen = model.layernorm(state)[:, 1:]
        with torch.no_grad():
            taught = slow.embeddings(batch["pixel_values"])
            for block in slow.layers:
                taught = block(taught)
            taught = F.layer_norm(taught[:, 1:], taught.shape[-1:])[rows[..., None], goals].flatten(0, 1)
        where, wanted = (place([each // side, each % side]) for each in (kept, goals))
        values, mask, where = (each.repeat_interleave(num, 0) for each in (seen, there, where))
        guess = decoder.out(decoder.trunk(values, mask, where, wanted.flatten(0, 1), asked))
        return F.smooth_l1_loss(guess, taught, reduction="none").mean(-1)[asked].mean()

    return loss, list(decoder.parameters())


if __name__ == "__main__":
    main()
