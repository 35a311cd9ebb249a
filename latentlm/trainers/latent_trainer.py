"""Trainers: what a Hugging Face trainer would leave out of a model with latent terms, as a thin mixin."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from latentlm.attach.api import restore
from latentlm.attach.forward_io import ForwardInputs
from latentlm.attach.monitoring import Monitoring
from latentlm.attach.optimizer_steps import warn_accumulated
from latentlm.attach.state import LatentState, latent_state
from latentlm.attach.teacher_forward import start_teacher
from latentlm.data.text.collate import Collator
from latentlm.data.text.unit_collator import UnitCollator
from latentlm.data.text.units import UnitRule
from latentlm.objective.index_sets import sets_read, units_read
from latentlm.trainers.parameter_groups import depth_scales, scale_rates
from latentlm.trainers.per_step import ClipEachWeight, WeightDecaySchedule
from latentlm.trainers.safe_training import SafeTrainingMixin
from latentlm.trainers.units import with_units

# pyright cannot know which trainer the mixin is mixed into
# pyright: reportAttributeAccessIssue=false


class LatentTrainerMixin(SafeTrainingMixin):
    """Exact means over accumulation and ranks, and every term in the logs.

    For trainers that take `outputs.loss`; the terms are already in it. `compute_loss_func` and label smoothing take the
    labels away before the model sees them, so they are refused.

    Args:
        head_learning_rate: of the heads, which start from nothing beside a network that may be trained long ago; the
            schedule scales both. None: that of the network.
        layer_decay: learning rate of a block as a share of that of the block above it.
        final_weight_decay: weight decay at the last step, reached along half a cosine.
        max_weight_grad_norm: limit of each weight's own gradient; goes with ``max_grad_norm=0``.
        units: rules for grains of one's own, as ``data.units`` of a recipe; see `with_units`.
        when_not_finite: ``stop`` or ``skip``, see `SafeTrainingMixin`.
    """

    def __init__(
        self,
        *args: Any,
        head_learning_rate: float | None = None,
        layer_decay: float | None = None,
        final_weight_decay: float | None = None,
        max_weight_grad_norm: float | None = None,
        units: Sequence[UnitRule] = (),
        **kwargs: Any,
    ):
        self._head_learning_rate, self._layer_decay = head_learning_rate, layer_decay
        super().__init__(*args, **kwargs)
        if final_weight_decay is not None:
            self.add_callback(WeightDecaySchedule(final_weight_decay))
        if max_weight_grad_norm is not None:
            self.add_callback(ClipEachWeight(max_weight_grad_norm))
        own_loss = callable(self.compute_loss_func)  # where it is a string, TRL only keeps transformers from scaling
        if own_loss or self.args.label_smoothing_factor:
            name = "compute_loss_func" if own_loss else "label_smoothing_factor"
            raise ValueError(f"{name}: takes the labels from the model; leave it out, losses belong in the objective")
        if self.args.n_gpu > 1:
            raise ValueError("several GPUs in one process: latent heads need a process for each; start with torchrun")
        if self.get_cp_size() * self.get_sp_size() > 1:
            raise ValueError("context and sequence parallelism: they cut rows, and latent terms need whole ones")
        if self.args.ddp_broadcast_buffers is None:
            # teachers are buffers, equal on all ranks and as large as the network: sent before every forward they would
            # cost as much as its gradients. The arguments have been read by now, so accelerate is told
            self.args.ddp_broadcast_buffers = False
            if (handler := self.accelerator.ddp_handler) is not None:
                handler.broadcast_buffers = False
        if (watched := self._latent.steps.accumulation).names and self.args.gradient_accumulation_steps > 1:
            warn_accumulated(watched.names, f"gradient_accumulation_steps={self.args.gradient_accumulation_steps}")
        watched.warned = True
        self.add_callback(_CountSteps(self))
        self._find_units(units)

    def _find_units(self, rules: Sequence[UnitRule]) -> None:
        """Let the batches have the units that the terms read, where the collator does not give them already."""
        grains, _ = units_read(self._latent.objective.terms.values())
        if not grains or isinstance(self.data_collator, Collator | UnitCollator):
            if rules:
                why = (
                    "the collator finds units itself; give it the rules"
                    if grains
                    else "no term reads any; leave it out"
                )
                raise ValueError(f"units: {why}")
            return
        tokenizer = getattr(self, "processing_class", None)
        if not hasattr(tokenizer, "decode"):
            raise ValueError(
                f"units '{grains[0]}' are found in the text: give the tokenizer as processing_class, or wrap the "
                "collator with latentlm.with_units"
            )
        limit = getattr(self.args, "max_length", None)
        self.data_collator = with_units(self.data_collator, tokenizer, self.model, units=rules, max_length=limit)

    @property
    def _latent(self) -> LatentState:
        return latent_state(self.model)

    def _add_terms(self, select: Callable[[ForwardInputs], ForwardInputs]) -> None:
        """Let a preference trainer add the terms to its own loss; `select` gives what they read of a forward."""
        state = self._latent
        state.trainer.adds_latent, state.trainer.select = True, select
        for name, term in state.objective.terms.items():
            if sets := sets_read(term):
                raise ValueError(
                    f"objective.terms.{name}: reads {', '.join(sets)}, which these rows do not have; leave the term out"
                )
        if self.args.sync_ref_model:
            raise ValueError("sync_ref_model: the reference has no heads, and TRL mixes all weights; leave it out")

    def _with_terms(self, loss: Any, forwards: int = 1) -> Any:
        """A preference trainer's own loss, which it scales by `forwards`, and the terms."""
        state = self._latent
        latent = state.trainer.take()
        if latent is None:  # in evaluation there are no terms
            return loss
        state.monitoring.metrics.add("data/value", loss.detach() * forwards, 1.0)
        return state.objective.lm_weight * loss + latent.to(loss.device)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The trainer's own, in which heads may have a rate of theirs and blocks shares of it."""
        optimizer = super().create_optimizer(*args, **kwargs)  # type: ignore[misc]
        if self._layer_decay is not None:
            state = self._latent
            scale_rates(optimizer, depth_scales(state.model, state.backbone, self._layer_decay))
        if self._head_learning_rate is not None:
            _set_rate(optimizer, self._latent.model.latent.parameters(), self._head_learning_rate)
        return optimizer

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as ever; nothing is counted from before, and nothing outlives it."""
        self._latent.monitoring = Monitoring()
        try:
            return super().train(*args, **kwargs)
        finally:
            self._latent.steps.counts = self._latent.steps.num_items = None

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Count what each term averages over in this optimizer step, on all ranks."""
        batches, count = super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]
        self._latent.steps.total = self.state.max_steps
        counts = self._count(batches, count is not None) if count is not None or self._counts_rows else None
        if counts is not None and count is None:
            # without labels the trainer takes means over forwards and ranks: undone, so that every value counts once
            forwards = len(batches) * self.args.world_size
            counts = {name: value.clamp(min=1) / forwards for name, value in counts.items()}
        self._latent.steps.counts = counts
        return batches, count

    @property
    def _counts_rows(self) -> bool:
        """Whether batches without labels are counted as well."""
        return self._latent.backbone.grid is not None

    def _inputs(self, batch: Any) -> ForwardInputs:
        """What the terms will read of a batch."""
        return ForwardInputs.of(batch)

    def _count(self, batches: list[Any], labelled: bool) -> dict[str, torch.Tensor] | None:
        state = self._latent
        terms = state.attachment.heads.terms
        if not batches or not terms:
            return None
        running = state.running()
        sums = [terms.counts(state.view({}, self._inputs(batch)), running) for batch in batches]
        counts = torch.stack([torch.stack([each[name] for each in sums]).sum() for name in terms])
        counts = counts.float().to(self.args.device)
        # without labels ranks are averaged as they are; else the trainer may scale by the rank's own count
        if self.args.average_tokens_across_devices or not labelled:
            counts = self.accelerator.reduce(counts, "sum") / self.get_tp_size()
        return dict(zip(terms, counts, strict=True))

    def log(self, logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Add the terms' means, the monitors and the latest gradient shares to a line of training logs."""
        if "loss" in logs:
            metrics, probe = self._latent.monitoring.metrics, self._latent.monitoring.probe
            means = metrics.means(self.args.device, lambda sums: self.accelerator.reduce(sums, "sum"))
            logs = logs | means | metrics.latest | probe.found
            metrics.latest, probe.found = {}, {}  # said once, in the line after the look
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        # PEFT restores only what exists, and teachers begin to exist with the first step
        for kind in self._latent.model.latent.teachers:
            start_teacher(self._latent.attachment, kind)
        super()._load_from_checkpoint(*args, **kwargs)  # type: ignore[misc]
        if not self.is_fsdp_enabled:
            restore(self._latent.model, args[0])

    def _load_best_model(self) -> None:
        super()._load_best_model()  # type: ignore[misc]
        if not self.is_fsdp_enabled and not self.is_deepspeed_enabled:
            restore(self._latent.model, self.state.best_model_checkpoint)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        known: list[str] = self._signature_columns
        self._signature_columns = [*known, *(name for name in ("pairs", "latent") if name not in known)]


class _CountSteps(TrainerCallback):
    """Counts a step at its end, before a checkpoint, where the optimizer has stepped copies of the weights (ZeRO)."""

    def __init__(self, trainer: LatentTrainerMixin):
        self._trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The weights are those of the step by now."""
        self._trainer._latent.steps.settle()


def _set_rate(optimizer: torch.optim.Optimizer, weights: Iterable[torch.Tensor], rate: float) -> None:
    """Move `weights` to groups of their own, which keep everything of the old ones but the learning rate."""
    theirs = {id(weight) for weight in weights}
    for group in list(optimizer.param_groups):
        moved = [weight for weight in group["params"] if id(weight) in theirs]
        if moved:
            group["params"] = [weight for weight in group["params"] if id(weight) not in theirs]
            optimizer.add_param_group({**group, "params": moved, "lr": rate})


class LatentTrainer(LatentTrainerMixin, Trainer):
    """`transformers.Trainer` for a model with latent heads; same arguments."""
