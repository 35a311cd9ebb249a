"""The trainer of a run, which also measures the next-token loss on held-out texts."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from latentlm.data.text.token_bytes import TokenBytes
from latentlm.trainers.latent_trainer import LatentTrainer

IGNORE = -100


def bytes_per_token(examples: Iterable[Mapping[str, Any]], sizes: TokenBytes | None) -> float | None:
    """Bytes of text for each predicted token of a data set; None where the tokenizer does not tell them.

    Args:
        examples: rows with input_ids and labels.
        sizes: of the tokenizer's tokens.
    """
    if sizes is None:
        return None
    bytes_, tokens = 0, 0
    for example in examples:
        count = sizes.count(example["input_ids"], example["labels"])
        if count is None:
            return None
        bytes_ += count
        tokens += sum(label != IGNORE for label in example["labels"][1:])
    return bytes_ / tokens if bytes_ and tokens else None


class HeldOutTrainer(LatentTrainer):
    """`LatentTrainer` whose ``eval_loss`` is the mean over held-out tokens, not over batches, in nats.

    ``eval_bits_per_token`` is the same in bits, ``eval_bits_per_byte`` over the bytes of text that those tokens stand
    for, so that models with other tokenizers compare. The terms are training's alone: this is the plain model's loss.

    Args:
        *args: of the trainer.
        bytes_per_token: of the held-out texts, by the prefix of their metrics, such as ``eval``.
        entropy: what a perfect model would lose on each of those tokens, where that is known, by prefix;
            ``eval_above_entropy`` is what is left.
        **kwargs: of the trainer.
    """

    _sums: torch.Tensor

    def __init__(
        self,
        *args: Any,
        bytes_per_token: Mapping[str, float] | None = None,
        entropy: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self._bytes_per_token, self._entropy = bytes_per_token or {}, entropy or {}

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
            bits = loss / count / math.log(2)
            output.metrics.update({f"{prefix}_loss": loss / count, f"{prefix}_bits_per_token": bits})
            if size := self._bytes_per_token.get(prefix):
                output.metrics[f"{prefix}_bits_per_byte"] = bits / size
            if prefix in self._entropy:
                output.metrics[f"{prefix}_above_entropy"] = loss / count - self._entropy[prefix]
        return output
