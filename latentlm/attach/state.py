"""What a model with heads knows between its hooks."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from latentlm.attach.forward_io import Call
from latentlm.attach.optimizer_steps import Accumulating, StepClock
from latentlm.attach.teacher_forward import follow, teacher_norm
from latentlm.backbones import Backbone, readout
from latentlm.components.tap import Depth, resolve_depth
from latentlm.monitor.gradients import GradientProbe
from latentlm.monitor.running_means import Metrics
from latentlm.objective.objective import Objective
from latentlm.types import ForwardView


class Run:
    """What one attached model knows between its hooks; holds no weights and is not a module.

    Args:
        model: the causal LM or ViT.
        backbone: its parts.
        objective: what is trained.
        wanted: depths read by the terms, of the network itself (None) and of each teacher.
    """

    def __init__(self, model: Any, backbone: Backbone, objective: Objective, wanted: dict[Any, set[Depth]]):
        self.model: Any = model  # heads, PEFT and TRL give it attributes that its class does not have
        self.backbone, self.objective = backbone, objective
        self.wanted = {k: {resolve_depth(d, backbone.num_layers) for d in v} for k, v in wanted.items()}
        self.handles: list[Any] = []
        self.clock, self.seen = StepClock(model), None
        self.probe, self.metrics = GradientProbe(), Metrics()
        self.accumulating = Accumulating(objective.uses_batch_statistics)
        parts = backbone.decoder.named_modules()
        self.norm = next((name for name, part in parts if part is backbone.norm), None)
        self.can_cache = "use_cache" in inspect.signature(model.forward).parameters
        # set by a trainer: what the terms average over in this optimizer step, and whether it adds them by itself
        self.counts: dict[str, Tensor] | None = None
        self.num_items: Tensor | int | None = None
        self.adds_latent = False
        # set by a trainer whose loss is not the data's: what of a call the terms read
        self.part: Callable[[Call], Call] | None = None
        self.total: int | None = None  # optimizer steps in all, for what moves along a schedule
        self.left: Tensor | None = None
        self.attention: Tensor | None = None  # kept for blocks that run again in the backward
        self.missed = False
        self.passing: list[Any] = []  # hooks of one forward
        self.clear()

    def clear(self) -> None:
        """Forget the forward that has ended."""
        while self.passing:
            self.passing.pop().remove()
        self.reading: str | None = None
        self.call: Call | None = None
        self.states: dict[int, Tensor] = {}
        self.teachers: dict[str, dict[int, Tensor]] = {}
        self.loss: Tensor | None = None
        self.active = self.compiled = False

    def detach(self) -> None:
        """Remove every hook."""
        for handle in self.handles:
            handle.remove()
        for module in self.model.modules():
            module.__dict__.pop("_latent_run", None)

    @property
    def fresh(self) -> bool:
        """Whether the heads are not those of the last training forward, but a copy's or a checkpoint's."""
        return self.seen != (id(self.model.latent), self.model.latent.step)

    def tick(self) -> bool:
        """Count an optimizer step, if there was one, and let the teachers follow."""
        latent = self.model.latent
        if self.fresh:
            self.clock = StepClock(self.model)
        ticked = self.clock.ticked()
        if ticked:
            latent.advance()
            self.accumulating.reached = False
        self.seen = (id(latent), latent.step)
        for kind in latent.teachers:
            follow(self, kind, ticked)
        return ticked

    def decoder_weight(self, name: str) -> Tensor:
        """A weight of the decoder by its dotted name."""
        return self.backbone.decoder.get_parameter(name)

    def view(self, states: dict[int, Tensor], call: Call, kind: str | None = None) -> ForwardView:
        """A view of these states, the network's own or a teacher's, with everything that the call brought along."""
        norm = None if self.norm is None else teacher_norm(self, kind)
        if self.backbone.grid is not None:
            if call.pixel_values is None:
                raise ValueError("latent terms of a ViT need pixel_values")
            latent = call.latent or {}
            return self.backbone.grid.view(
                states, self.backbone.num_layers, norm, call.pixel_values, latent, full=kind is not None
            )
        return ForwardView(
            states=states,
            segments=call.segments(),
            num_layers=self.backbone.num_layers,
            sets=call.sets,
            inputs=call.input_ids,
            labels=call.next_labels(),
            embed=self.model.get_input_embeddings(),
            norm=norm,
            readout=readout(self.model),
        )

    def share(self, call: Call) -> Tensor | float:
        """Share of this forward in the optimizer step, as the trainer counts it: label tokens here / in all."""
        count = self.num_items if call.num_items_in_batch is None else call.num_items_in_batch
        return 1.0 if count is None or call.next_labels() is None else call.num_labels() / count

    def take(self) -> Tensor | None:
        """The latent loss that the last forward left to its trainer, once."""
        loss, self.left = self.left, None
        return loss

    def took(self, grad: Tensor) -> None:
        """A backward has reached the latent loss."""
        self.missed = False


def latent_run(model: nn.Module) -> Run:
    """The state behind a model with heads, through PEFT, DDP, FSDP and compile wrappers."""
    for module in model.modules():
        if "_latent_run" in module.__dict__ and module.__dict__["_latent_run"].model is module:
            return module.__dict__["_latent_run"]
    raise ValueError(f"{type(model).__name__} has no latent heads; call get_latent_model first")
