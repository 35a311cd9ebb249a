"""TRL's GRPOTrainer with latent terms beside its policy loss."""

from typing import Any

import torch
from trl import GRPOTrainer  # pyright: ignore[reportPrivateImportUsage]

from latentlm.attach.forward_io import IGNORE, ForwardInputs
from latentlm.trainers.latent_trainer import LatentTrainerMixin


class LatentGRPOTrainer(LatentTrainerMixin, GRPOTrainer):
    """`trl.GRPOTrainer` for a model with latent heads; same arguments.

        L = data * L_GRPO + sum_i w_i mean(term_i)

    The terms read prompt and completion in the one forward of the policy that has a gradient. Generating, and scoring
    under the old policy and the reference, have none and give the terms nothing; nor do completions that
    `mask_truncated_completions` hides. A term whose target is the data predicts the completion as it was sampled.

    Means are those of TRL's token losses (DAPO): over all completions generated together, scaled to one optimizer step.
    Where a step uses what was generated at once (the default) every value counts once.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._add_terms(_whole)
        self._counted: Any = None  # completions that `_generated` belongs to
        self._generated: dict[str, torch.Tensor] | None = None

    def _inputs(self, batch: Any) -> ForwardInputs:
        ids, mask = (torch.cat([batch[f"prompt_{n}"], batch[f"completion_{n}"]], 1) for n in ("ids", "mask"))
        labels = ids.masked_fill(mask == 0, IGNORE)  # as TRL makes them
        labels[:, : batch["prompt_ids"].shape[1]] = IGNORE
        return ForwardInputs(input_ids=ids, attention_mask=mask, labels=labels)

    def compute_loss(
        self, model: Any, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss plus the terms."""
        state, forwards = self._latent, self.current_gradient_accumulation_steps
        if model.training:
            together: Any = self._buffered_inputs
            if self._counted is not together:
                self._counted, self._generated = together, self._count(together, labelled=False)
            # ranks are averaged as they are, and TRL divides by the number of forwards itself
            share = forwards / (len(together) * self.accelerator.num_processes)
            counted = self._generated
            state.steps.counts = (
                None if counted is None else {name: n.clamp(min=1) * share for name, n in counted.items()}
            )
        return self._with_terms(super().compute_loss(model, inputs, return_outputs, num_items_in_batch), forwards)


def _whole(inputs: ForwardInputs) -> ForwardInputs:
    return inputs
