"""The state that the hooks of one model share: attachment, running forward, optimizer steps, monitor, trainer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from latentlm.attach.attachment import Attachment
from latentlm.attach.forward_io import Forward, ForwardInputs
from latentlm.attach.monitoring import Monitoring
from latentlm.attach.optimizer_steps import StepTracker
from latentlm.attach.teacher_forward import (
    teacher_embed,
    teacher_heads,
    teacher_norm,
    teacher_readout,
    update_teacher,
)
from latentlm.backbones import Backbone
from latentlm.objective.objective import Objective
from latentlm.types import ForwardView, StepContext


@dataclass
class TrainerLink:
    """How a trainer takes part, where it computes a loss of its own.

    Attributes:
        adds_latent: whether it adds the latent loss by itself.
        select: what of the inputs the terms read, where its loss is not the data's.
        latent_loss: what the last forward has left to it.
    """

    adds_latent: bool = False
    select: Callable[[ForwardInputs], ForwardInputs] | None = None
    latent_loss: Tensor | None = None

    def take(self) -> Tensor | None:
        """The latent loss of the last forward, once."""
        loss, self.latent_loss = self.latent_loss, None
        return loss


@dataclass(frozen=True)
class Kept:
    """Which patches the blocks of a ViT see in this forward.

    Attributes:
        patches: their numbers ``[r k]``, -1 where a row has fewer.
        attention: what the blocks are told of it, if anything.
        shape: rows and columns of the whole grid.
        num: positions in a row, those before the patches included.
    """

    patches: Tensor
    attention: Tensor | None
    shape: tuple[int, int]
    num: int


class LatentState:
    """What one model with heads knows between its hooks; holds no weights and is not a module.

    Args:
        attachment: what is attached to which model.

    Attributes:
        forward: the training forward that is running.
        steps: optimizer steps.
        monitoring: what is measured.
        trainer: set by a trainer.
        kept: of a ViT that drops patches, kept for blocks that run again in the backward.
        checked: identity of the heads that were checked to be trained; a copy or a PEFT wrapper has others.
        image_batches: batches of images whose sets were checked.
    """

    def __init__(self, attachment: Attachment):
        self.attachment = attachment
        self.forward: Forward | None = None
        self.steps = StepTracker(attachment.model, self.advance, attachment.objective.uses_batch_statistics)
        self.monitoring = Monitoring()
        self.trainer = TrainerLink()
        self.kept: Kept | None = None
        self.checked: int | None = None
        self.image_batches = 0

    @property
    def model(self) -> Any:
        """The causal LM or ViT itself, inside all wrappers."""
        return self.attachment.model

    @property
    def backbone(self) -> Backbone:
        """Its parts."""
        return self.attachment.backbone

    @property
    def objective(self) -> Objective:
        """What is trained."""
        return self.attachment.objective

    @property
    def collecting(self) -> Forward | None:
        """The training forward whose heads have not run yet."""
        return self.forward if self.forward is not None and self.forward.collecting else None

    def drop_forward(self) -> Forward | None:
        """The forward that has ended, forgotten from here on."""
        forward, self.forward = self.forward, None
        while forward is not None and forward.lm_head_hooks:
            forward.lm_head_hooks.pop().remove()
        return forward

    def advance(self) -> None:
        """After an optimizer step: the heads count it and the teachers follow."""
        attachment, heads = self.attachment, self.attachment.heads
        heads.advance()
        gone = heads.terms.weights.gone(heads.step, self.steps.total)
        still = attachment.blocks_of(frozenset(attachment.specs) - gone)
        for kind in (kind for kind in heads.teachers if still[kind]):
            update_teacher(attachment, kind, self.steps.total)

    def running(self) -> frozenset[str]:
        """Terms that are run at this step; refused where nothing at all would be trained."""
        weights, step, total = self.attachment.heads.terms.weights, self.attachment.heads.step, self.steps.total
        running = weights.running(step, total)
        if self.attachment.specs and not running and self.objective.lm_weight == 0:
            raise ValueError(
                f"objective: lm_weight is 0 and no term is on at step {step}, so nothing is trained; let one start "
                "at 0 and stay"
            )
        return running

    def view(
        self,
        states: dict[int, Tensor],
        inputs: ForwardInputs,
        kind: str | None = None,
        local: dict[int, Tensor] | None = None,
        tapped: dict[int, Tensor] | None = None,
    ) -> ForwardView:
        """A view of these states, the network's own or a teacher's, with everything that the inputs brought along."""
        attachment = self.attachment
        norm = None if attachment.norm is None else teacher_norm(attachment, kind)
        if attachment.backbone.grid is not None:
            if inputs.pixel_values is None:
                raise ValueError("latent terms of a ViT need pixel_values")
            latent = inputs.latent or {}
            pixels, full = inputs.pixel_values, kind is not None
            return attachment.backbone.grid.view(states, norm, pixels, latent, full=full, local=local or {})
        return ForwardView(
            states=states,
            segments=inputs.segments(attachment.pad_token_id),
            sets=inputs.sets,
            inputs=inputs.input_ids,
            labels=inputs.next_labels(),
            embed=teacher_embed(attachment, kind),
            norm=norm,
            readout=teacher_readout(attachment, kind),
            tapped=tapped or {},
        )

    def context(self, forward: Forward) -> StepContext:
        """Everything that the terms read of a forward."""
        select, heads = self.trainer.select, self.attachment.heads
        inputs = forward.inputs if select is None else select(forward.inputs)
        return StepContext(
            view=self.view(forward.states, inputs, local=forward.local_states, tapped=forward.tapped),
            teacher_views={kind: self.view(states, inputs, kind) for kind, states in forward.teacher_states.items()},
            heads=heads.terms.calls(),
            teacher_heads={kind: teacher_heads(self.attachment, kind) for kind in forward.teacher_states},
            step=heads.step,
            total_steps=self.steps.total,
        )

    def share(self, inputs: ForwardInputs) -> Tensor | float:
        """Share of this forward in the optimizer step, as the trainer counts it: label tokens here / in all."""
        count = self.steps.num_items if inputs.num_items_in_batch is None else inputs.num_items_in_batch
        return 1.0 if count is None or inputs.next_labels() is None else inputs.num_labels() / count

    def detach(self) -> None:
        """Remove every hook."""
        for handle in self.attachment.handles:
            handle.remove()
        for module in self.attachment.model.modules():
            module.__dict__.pop("_latent_state", None)


def latent_state(model: nn.Module) -> LatentState:
    """The state behind a model with heads, through PEFT, DDP, FSDP and compile wrappers."""
    for module in model.modules():
        if "_latent_state" in module.__dict__ and module.__dict__["_latent_state"].model is module:
            return module.__dict__["_latent_state"]
    raise ValueError(f"{type(model).__name__} has no latent heads; call get_latent_model first")
