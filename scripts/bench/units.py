"""What `hierarchy` costs: chunks, sentences and paragraphs, each read alone by a slow copy.

    python scripts/bench/units.py [--shape small | smollm2] [--batch 32 --length 128 --rounds 15 --threads 1]

Baseline: the plain Hugging Face step on the documents alone. The network runs on the documents and the copy on the
units; in the last arm both run on everything, documents and units. The column FLOPs is 1 + FLOPs of the copy's forward
up to its deepest target / FLOPs of the model's step; heads are left out.
"""

import argparse
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from interleaved import Arm, Loss, compare, forward_flops, options, plain_config, plain_model, same_loss, start
from torch import Tensor, nn

from latentlm import get_latent_model
from latentlm.attach import hooks, teacher_forward
from latentlm.attach.state import latent_state
from latentlm.components.units import UnitsAlone
from latentlm.config.catalog import read_recipe
from latentlm.data import Collator

SIZES = {"chunk": 8, "sentence": 24, "paragraph": 72}  # tokens


def main() -> None:
    args = start(options(__doc__))
    config = plain_config(args.shape)
    deepest = 3 / 4
    units = sum(size * max(args.length // size - 1, 0) for size in SIZES.values())  # the first is not read
    forward = forward_flops(config, args.batch, units, deepest, head=False)
    once = 3 * forward_flops(config, args.batch, args.length)
    arms = [
        Arm("plain", partial(plain, args), 1.0),
        Arm("hierarchy", partial(attached, args), 1 + forward / once),
        Arm("hierarchy, both on everything", partial(whole, args)),
    ]
    same_loss(arms[1:], partial(plain_model, args.shape), args)
    compare("units read alone", arms, partial(plain_model, args.shape), args)


def rows(args: argparse.Namespace, config: Any) -> list[dict[str, Any]]:
    """Random documents, each a whole number of units."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, config.vocab_size, (args.batch, args.length), generator=draw).tolist()
    units = {
        grain: [[first, first + size, -1] for first in range(0, args.length - size + 1, size)]
        for grain, size in SIZES.items()
    }
    return [{"input_ids": row, "labels": row, "units": units} for row in ids]


def plain(args: argparse.Namespace, model: Any) -> tuple[Loss, list[nn.Parameter]]:
    """The step of a model without anything."""
    inputs = Collator(0)(rows(args, model.config))
    del inputs["latent"]
    return lambda: model(**inputs).loss, []


def attached(args: argparse.Namespace, model: Any) -> tuple[Loss, list[nn.Parameter]]:
    """The method of that name."""
    get_latent_model(model, read_recipe("hierarchy")["objective"] | {"monitor_every": 0})
    alone = tuple(UnitsAlone(grain, first=1) for grain in SIZES)
    inputs = Collator(0, grains=tuple(SIZES), alone=alone)(rows(args, model.config))
    latent_state(model).steps.total = 1000

    def loss() -> Tensor:
        return model(**inputs).loss

    return loss, list(model.latent.parameters())


def whole(args: argparse.Namespace, model: Any) -> tuple[Loss, list[nn.Parameter]]:
    """Network and copy both read documents and units."""
    loss, weights = attached(args, model)

    def everything() -> Tensor:
        with patch.object(hooks, "own_part", _nothing), patch.object(teacher_forward, "teacher_part", _nothing):
            return loss()

    return everything, weights


def _nothing(*_: Any) -> None:
    return None


if __name__ == "__main__":
    main()
