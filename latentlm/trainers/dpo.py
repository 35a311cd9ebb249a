"""TRL's DPOTrainer with latent terms beside its preference loss."""

from dataclasses import replace
from typing import Any

from trl import DPOTrainer  # pyright: ignore[reportPrivateImportUsage]

from latentlm.attach.forward_io import IGNORE, ForwardInputs
from latentlm.trainers.latent_trainer import LatentTrainerMixin


class LatentDPOTrainer(LatentTrainerMixin, DPOTrainer):
    """`trl.DPOTrainer` for a model with latent heads; same arguments.

        L = data * L_DPO + sum_i w_i mean(term_i)

    The terms read the prompt and the chosen answer, in the policy's own forward. Rejected answers give the terms
    nothing: their states would be made as predictable as those of what is wanted. Forwards of the reference have no
    terms. Every value of a term counts once in the optimizer step, however it is spread over forwards and ranks.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._add_terms(_chosen)

    @property
    def _counts_rows(self) -> bool:
        return True

    def _inputs(self, batch: Any) -> ForwardInputs:
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORE)  # as TRL makes them
        return _chosen(replace(ForwardInputs.of(batch), labels=labels))

    def compute_loss(
        self, model: Any, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss plus the terms."""
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss, *outputs = result if return_outputs else (result,)
        loss = self._with_terms(loss)
        return (loss, *outputs) if return_outputs else loss


def _chosen(inputs: ForwardInputs) -> ForwardInputs:
    """The first half of the rows; TRL puts the rejected answers in the second."""
    segments = inputs.segments().clone()
    half = len(segments) // 2
    segments[half:] = -1
    labels = None if inputs.labels is None else inputs.labels.clone()
    if labels is not None:
        labels[half:] = IGNORE
    return replace(inputs, labels=labels, latent={**(inputs.latent or {}), "segments": segments})
