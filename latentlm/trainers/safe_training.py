"""A training that loses nothing: it stops where it diverges, saves whole checkpoints, and resumes from whole ones."""

import math
import warnings
from pathlib import Path
from typing import Any, Literal

import torch

from latentlm.distributed.collectives import all_reduce_count
from latentlm.trainers.checkpoints import newest_whole, rotate, seal, unseal
from latentlm.whole_files import writing

# pyright cannot know which trainer the mixin is mixed into
# pyright: reportAttributeAccessIssue=false

RESUME = "free space and resume, older checkpoints are whole"
SKIPPED = 10  # steps in a row that may be left out before a training counts as lost


class DivergedError(FloatingPointError):
    """A loss, a gradient or a weight is NaN or infinite: nothing that comes after is worth a step or a disk."""


class SafeTrainingMixin:
    """For any of transformers' trainers.

    Args:
        when_not_finite: ``stop`` raises `DivergedError` at the first step whose loss or gradient is NaN or infinite;
            ``skip`` leaves such steps out, ten in a row at most. Weights that are not finite are never saved.
    """

    def __init__(self, *args: Any, when_not_finite: Literal["stop", "skip"] = "stop", **kwargs: Any):
        self._when_not_finite = when_not_finite
        self._losses: list[torch.Tensor] = []  # of the forwards of this optimizer step
        self._skipped, self._logged = 0, dict[str, Any]()
        super().__init__(*args, **kwargs)
        self.args.logging_nan_inf_filter = False  # it writes a finite number where there was none

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as ever; ``resume_from_checkpoint=True`` passes over checkpoints that are not whole, and says so."""
        self._losses, self._skipped = [], 0
        if resume_from_checkpoint is True:
            whole, passed = newest_whole(Path(self.args.output_dir))
            if whole is not None:
                resume_from_checkpoint = str(whole)
                for checkpoint, why in passed.items():
                    warnings.warn(f"{checkpoint} is not whole ({why}); resuming from {whole.name}", stacklevel=2)
        return super().train(resume_from_checkpoint, *args, **kwargs)  # type: ignore[misc]

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        # resumed from its last step, the loop would train one more before it looks
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return None
        return super()._run_epoch(*args, **kwargs)  # type: ignore[misc]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Train as ever, and keep the loss until its optimizer step."""
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self._losses.append(loss.detach())
        return loss

    def _get_grad_norm(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        norm = super()._get_grad_norm(model, *args, **kwargs)  # type: ignore[misc]
        loss, self._losses = torch.stack(self._losses).sum().item(), []
        # with fp16 the scaler looks for infinite gradients, and leaves out their steps by itself
        scaled = getattr(self.accelerator, "scaler", None) is not None
        size = 0.0 if norm is None or scaled else float(norm)
        lost = int(not (math.isfinite(loss) and math.isfinite(size)))
        if all_reduce_count(lost, self.args.device):
            self._lose(model, loss, size)
        else:
            self._skipped = 0
        return norm

    def _lose(self, model: Any, loss: float, size: float) -> None:
        """A step that must not be taken: stop, or leave it out; all ranks come here."""
        self._skipped += 1
        if self._when_not_finite == "skip" and self._skipped < SKIPPED and not self.is_deepspeed_enabled:
            model.zero_grad()
            return
        self.state.global_step += 1  # the one that is told
        self.log({"loss": loss, "grad_norm": size})
        values = {key.removesuffix("/value"): value for key, value in self._logged.items() if key.endswith("/value")}
        bad = {name: value for name, value in values.items() if not math.isfinite(value)} or values
        told = f" ({', '.join(f'{name} {value:.4g}' for name, value in bad.items())})" if bad else ""
        what = f"the gradient is {size}" if math.isfinite(loss) else f"the loss is {loss}"
        raise self._diverged(f"{what}{told}")

    def _diverged(self, what: str) -> DivergedError:
        whole, _ = newest_whole(Path(self.args.output_dir))
        last = f"the last good checkpoint is {whole}" if whole else "there is no checkpoint yet"
        return DivergedError(
            f"step {self.state.global_step}: {what}; {last}; lower the learning rate, or leave such steps out with "
            "when_not_finite=skip (in a recipe training.when_not_finite)"
        )

    def _check_weights(self) -> None:
        """Refuse to save weights that are lost; all ranks come here."""
        names = (name for name, weight in self.model.named_parameters() if weight.requires_grad and not _finite(weight))
        lost = next(names, None)
        if all_reduce_count(int(lost is not None), self.args.device):
            raise self._diverged(f"after this step the weights are not finite{f' ({lost})' if lost else ''}")

    def log(self, logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Log as ever, and remember the line."""
        self._logged = logs
        if not math.isfinite(logs.get("loss", 0.0)):
            self._tr_loss.zero_()  # the trainer subtracts its sum from itself, which NaN survives
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Save as ever, but no weights that are NaN or infinite; a disk that is full is one line."""
        self._check_weights()
        with writing(self.args.output_dir, RESUME):
            super().save_model(*args, **kwargs)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._check_weights()
        folder = Path(self._get_output_dir(trial=trial))
        target, first = folder / f"checkpoint-{self.state.global_step}", self.args.should_save
        # older checkpoints go when this one is whole and on the disk, not before
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        with writing(self.args.output_dir, RESUME):
            try:
                if first:
                    unseal(target)
                super()._save_checkpoint(model, trial)  # type: ignore[misc]
            finally:
                self.args.save_total_limit = limit
            self.accelerator.wait_for_everyone()
            if first:
                torch.save(self.args, target / "training_args.bin")
                seal(target)
                rotate(folder, limit, self.state.best_model_checkpoint)


def _finite(weight: torch.Tensor) -> bool:
    """Whether this rank's share of a weight is."""
    own = weight.detach()
    own = own.to_local() if hasattr(own, "to_local") else own
    return bool(own.isfinite().all())
