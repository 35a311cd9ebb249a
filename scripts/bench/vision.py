"""What latentlm costs a ViT's training step, against the same method written plainly, and with lightly's loss.

    python scripts/bench/vision.py [--batch 64 --rounds 8 --threads 1]

Each comparison first checks that all its arms have the same loss (relative 1e-5). Baseline: transformers' ViT and the
method as one would write it in a loop. lightly's arm is there where it is installed: `pip install --no-deps lightly`.
"""

import argparse
import importlib.util
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from interleaved import Arm, Loss, compare, machine, same_loss, twin
from losses_vs_lightly import lightly_losses
from torch import Tensor, nn
from transformers import ViTModel

from latentlm import get_latent_model
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
    for name, plain in (
        ("mae", {"written plainly": plain_mae}),
        ("vicreg", {"written plainly": plain_vicreg, **extra}),
    ):
        bench(name, plain, args)


def bench(name: str, plain: dict[str, Any], args: argparse.Namespace) -> None:
    """The recipe's step and the others, on one batch of scenes."""
    recipe = load_recipe(name, [f"training.per_device_train_batch_size={args.batch}", "data.source.num_train=256"])
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
        guess = decoder.out(decoder.trunk(seen, there, where, wanted))
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


if __name__ == "__main__":
    main()
