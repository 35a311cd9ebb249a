"""Trainers: what a Hugging Face trainer would leave out of a model with latent terms, as a thin mixin."""

from typing import Any

import torch
from transformers import Trainer

from latentlm.attach import Run, latent_run
from latentlm.types import View


class LatentTrainerMixin:
    """Exact means over accumulation and ranks, and every term in the logs.

    For trainers that take `outputs.loss`; the term is already in it. `compute_loss_func` and label smoothing take the
    labels away before the model sees them, so they are refused.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._latent = latent_run(self.model)  # type: ignore[attr-defined]
        if self.args.label_smoothing_factor > 0:  # type: ignore[attr-defined]
            raise ValueError("label_smoothing_factor: takes the labels from the model; set it to 0 for latent training")
        if self.compute_loss_func is not None:  # type: ignore[attr-defined]
            raise ValueError(
                "compute_loss_func: takes the labels from the model; give the loss as an objective instead"
            )

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Count what each term will average over in this optimizer step, on all ranks."""
        batches, count = super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]
        self._latent.counts = self._count(batches) if count is not None else None
        return batches, count

    def _count(self, batches: list[dict[str, Any]]) -> dict[str, torch.Tensor] | None:
        terms = self._latent.model.latent.terms
        sums = [terms.counts(_positions(self._latent, batch)) for batch in batches]
        if not sums or not terms.terms:
            return None
        counts = torch.stack([torch.stack([each[name] for each in sums]).sum() for name in terms.terms]).float()
        counts = self.accelerator.reduce(counts.to(self.args.device), "sum")  # type: ignore[attr-defined]
        return dict(zip(terms.terms, counts, strict=True))

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the terms' means, the monitors and the latest gradient shares to a line of training logs."""
        if "loss" in logs:
            logs.update(self._latent_logs())
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _latent_logs(self) -> dict[str, float]:
        metrics, device = self._latent.metrics, self.args.device  # type: ignore[attr-defined]
        names = sorted(metrics.sums)
        if not names:
            return {}
        pairs = [[torch.as_tensor(part, dtype=torch.float64, device=device) for part in metrics.sums[n]] for n in names]
        sums = torch.stack([torch.stack(pair) for pair in pairs])
        sums = self.accelerator.reduce(sums, "sum").tolist()  # type: ignore[attr-defined]
        metrics.sums = {}
        means = {name: total / count if count else 0.0 for name, (total, count) in zip(names, sums, strict=True)}
        return means | metrics.latest | self._latent.probe.found


def _positions(run: Run, batch: dict[str, Any]) -> View:
    """The view of a batch without its states."""
    before = run.inputs
    names = ("input_ids", "labels", "shift_labels", "attention_mask", "position_ids", "num_items_in_batch", "latent")
    run.inputs = {name: batch.get(name) for name in names}
    try:
        return run.view({})
    finally:
        run.inputs = before


class LatentTrainer(LatentTrainerMixin, Trainer):
    """`transformers.Trainer` for a model with latent heads; same arguments."""

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        for column in ("pairs", "latent"):
            if column not in self._signature_columns:
                self._signature_columns.append(column)
