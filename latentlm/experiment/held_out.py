"""The trainer of a run, which also measures the next-token loss on held-out texts."""

import math
from typing import Any

import torch

from latentlm.trainers.latent_trainer import LatentTrainer

IGNORE = -100


class HeldOutTrainer(LatentTrainer):
    """`LatentTrainer` whose ``eval_loss`` is the mean over held-out tokens, not over batches, in nats.

    ``eval_bits_per_token`` is the same in bits. The terms are training's alone, so this is the plain model's loss.
    """

    _sums: torch.Tensor

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        """Add up the loss of a batch and its tokens."""
        result = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        count = (inputs["labels"][:, 1:] != IGNORE).sum().to(self._sums.device)
        if result[0] is not None and count:
            self._sums += torch.stack([result[0].detach().double() * count, count.double()])
        return result

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The trainer's own, with the mean over tokens of all processes as its loss."""
        self._sums = torch.zeros(
            2, dtype=torch.float64, device="cpu" if self.args.device.type == "mps" else self.args.device
        )
        output: Any = super().evaluation_loop(*args, **kwargs)
        total: Any = self.accelerator.reduce(self._sums, "sum")
        loss, count = total.tolist()
        prefix = kwargs.get("metric_key_prefix", "eval")
        if count:
            output.metrics.update(
                {f"{prefix}_loss": loss / count, f"{prefix}_bits_per_token": loss / count / math.log(2)}
            )
        return output
