"""TRL's SFTTrainer with latent terms: it computes its own loss from a fused head, so the terms are added beside it."""

from typing import Any

from trl import SFTTrainer

from latentlm.trainer import LatentTrainerMixin


class LatentSFTTrainer(LatentTrainerMixin, SFTTrainer):
    """`trl.SFTTrainer` for a model with latent heads; same arguments."""

    def compute_loss(
        self, model: Any, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss plus the terms, scaled the same way."""
        self._latent.num_items = num_items_in_batch  # TRL keeps it from the model
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        latent = getattr(outputs, "latent_loss", None)
        if latent is not None and self.model.training:
            labels = inputs["labels"]
            here = (labels[..., 1:] != -100).sum()
            self._latent.metrics.add("data/value", -outputs.log_probs.detach().sum(), here)
            ranks = 1
            if self.args.average_tokens_across_devices and num_items_in_batch is not None:
                ranks = self.accelerator.num_processes // self.get_tp_size()
            weight = self._latent.objective.data
            loss = weight * loss + ranks * latent.to(loss.device)
        return (loss, outputs) if return_outputs else loss

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        for column in ("pairs", "latent"):
            if column not in self._signature_columns:
                self._signature_columns.append(column)
