"""TRL's SFTTrainer with latent terms: it computes its own loss from a fused head, so the terms are added beside it."""

from typing import Any

from trl import SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

from latentlm.trainers.latent_trainer import LatentTrainerMixin


class LatentSFTTrainer(LatentTrainerMixin, SFTTrainer):
    """`trl.SFTTrainer` for a model with latent heads; same arguments."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._latent.trainer.adds_latent = True

    def compute_loss(
        self, model: Any, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss plus the terms, scaled the same way."""
        state = self._latent
        state.steps.num_items = num_items_in_batch  # TRL keeps it from the model
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        latent = state.trainer.take()
        if latent is None:  # in evaluation there are no terms
            return result
        loss, *outputs = result if return_outputs else (result,)
        ranks = 1
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            ranks = self.accelerator.num_processes // self.get_tp_size()
        loss = state.objective.lm_weight * loss + ranks * latent.to(loss.device)
        return (loss, *outputs) if return_outputs else loss
