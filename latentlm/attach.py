"""The hooks that make a model collect its own states, run its heads and add their loss.

Every hook is a module-level function that finds its state on the module: then `copy.deepcopy` of the model gives a copy
with a state of its own.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from latentlm.backbones import Backbone, hidden_state, readout
from latentlm.call import Call
from latentlm.dist import world_size
from latentlm.ema import StepClock
from latentlm.look import look
from latentlm.metrics import Metrics
from latentlm.monitor import GradientProbe
from latentlm.objective import Objective, total
from latentlm.outputs import extended
from latentlm.selecting import selecting_hooks
from latentlm.sparse_head import skip_unlabelled
from latentlm.tap import Depth, resolve_depth
from latentlm.teaching import Reached, follow, teacher_heads, teacher_norm, teacher_states
from latentlm.types import Context, View


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
        self.seen = (id(latent), latent.step)
        for kind in latent.teachers:
            follow(self, kind, ticked)
        return ticked

    def decoder_weight(self, name: str) -> Tensor:
        """A weight of the decoder by its dotted name."""
        return self.backbone.decoder.get_parameter(name)

    def view(self, states: dict[int, Tensor], call: Call, kind: str | None = None) -> View:
        """A view of these states, the network's own or a teacher's, with everything that the call brought along."""
        norm = None if self.norm is None else teacher_norm(self, kind)
        if self.backbone.grid is not None:
            if call.pixel_values is None:
                raise ValueError("latent terms of a ViT need pixel_values")
            latent = call.latent or {}
            return self.backbone.grid.view(
                states, self.backbone.num_layers, norm, call.pixel_values, latent, full=kind is not None
            )
        return View(
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


def add_hooks(model: nn.Module, run: Run) -> None:
    """Register every hook of the model on its parts."""
    for module in (model, run.backbone.decoder, *run.backbone.layers):
        module.__dict__["_latent_run"] = run  # not through setattr: the run refers back to the model
    for depth, layer in enumerate(run.backbone.layers):
        layer.__dict__["_latent_depth"] = depth
        run.handles += [
            layer.register_forward_pre_hook(_before_layer, with_kwargs=True),
            layer.register_forward_hook(_after_layer),
        ]
    run.handles += [
        model.register_forward_pre_hook(_before_model, with_kwargs=True),
        run.backbone.decoder.register_forward_pre_hook(_before_decoder, with_kwargs=True),
        run.backbone.decoder.register_forward_hook(_after_decoder),
        model.register_forward_hook(_after_model, with_kwargs=True),
        model.register_state_dict_pre_hook(_before_saving),
        *selecting_hooks(run),
    ]


def _eager(hook: Callable) -> Any:
    """Keep a hook out of compiled graphs: how many positions the heads read depends on the data."""
    return torch.compiler.disable(hook)


def _check_trained(latent: Any) -> None:
    # through the wrapper that PEFT may have put around the heads
    if not all(weight.requires_grad for weight in latent.terms.parameters()):
        raise ValueError(
            "latent heads: some of their weights are not trained; with PEFT use latentlm.latent_lora_config, "
            "which trains and saves them in full"
        )


def _store(run: Run, depth: int, state: Tensor) -> None:
    run.compiled = torch.compiler.is_compiling()
    if depth in run.wanted[run.reading]:
        (run.states if run.reading is None else run.teachers[run.reading])[depth] = state


def _before_layer(layer: Any, args: tuple, kwargs: dict) -> None:
    run: Run = layer._latent_run
    depth: int = layer._latent_depth
    if not run.active:
        return
    if depth == 0:
        _store(run, 0, args[0] if args else kwargs["hidden_states"])
    if run.reading is not None and depth == max(run.wanted[run.reading]):
        # before the next block rather than after the last one needed: sharded blocks must finish their own hooks
        raise Reached


def _after_layer(layer: Any, args: tuple, output: Any) -> None:
    run: Run = layer._latent_run
    if run.active:
        _store(run, layer._latent_depth + 1, hidden_state(output))


@_eager
def _before_model(model: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    run: Run = model._latent_run
    if run.reading is not None:  # a ViT is its own encoder: this is a teacher's forward
        return args, kwargs
    run.clear()
    run.attention = None
    first = model.main_input_name
    named = dict(kwargs) if first in kwargs or not args else {**kwargs, first: args[0]}
    latent = kwargs.pop("latent", None)
    run.active = model.training and torch.is_grad_enabled()
    if (run.active or latent is not None) and run.can_cache:
        # with a cache transformers no longer derives the mask of packed segments, and they would see each other
        kwargs["use_cache"] = False
    if run.active:
        run.call = Call.read(named)
        if run.fresh:
            _check_trained(model.latent)
        if run.tick() and run.missed:
            raise ValueError(
                "latent terms: the last step was made without them, no backward went through outputs.latent_loss; "
                "use LatentTrainer (no label smoothing, no compute_loss_func) or add it to your own loss"
            )
    return args, kwargs


@_eager
def _before_decoder(decoder: Any, args: tuple, kwargs: dict) -> None:
    run: Run = decoder._latent_run
    if run.active and run.reading is None:
        for kind in run.model.latent.teachers:
            teacher_states(run, kind, args, kwargs)


@_eager
def _after_decoder(decoder: Any, args: tuple, output: Any) -> None:
    run: Run = decoder._latent_run
    if not run.active or run.reading is not None:
        return
    latent, call = run.model.latent, run.call
    assert call is not None
    read = call if run.part is None else run.part(call)
    context = Context(run.view(run.states, read), {kind: run.view(s, read, kind) for kind, s in run.teachers.items()})
    context.teacher_heads = {kind: teacher_heads(run, kind) for kind in run.teachers}
    reports = latent(context)
    run.active = False  # before the backward: a recomputed block must not store again
    run.passing = [] if run.compiled or run.backbone.grid is not None else skip_unlabelled(run.model, call)
    run.states, run.teachers = {}, {}
    if not reports:
        return
    share = run.share(call)
    run.loss = total(reports, share, run.counts)
    run.metrics.report(reports)
    look(run, context, reports, share)


@_eager
def _after_model(model: Any, args: tuple, kwargs: dict, output: Any) -> Any:
    run: Run = model._latent_run
    if run.reading is not None:
        return None
    call, latent = run.call, run.loss
    run.clear()
    if call is None:
        return None
    if isinstance(output, tuple):
        raise ValueError("return_dict=False: the latent terms need the outputs by name; leave it out in training")
    data, fused = output.get("loss"), bool(kwargs.get("fused_lm_head"))
    if fused and not run.adds_latent:
        raise ValueError(
            "latent terms: this trainer reads its loss off a fused head, without them; use LatentSFTTrainer, "
            "LatentDPOTrainer or LatentGRPOTrainer"
        )
    if data is not None and run.part is None:
        count, whole = call.num_labels(), call.num_items_in_batch
        run.metrics.add("data/value", data.detach() * (count if whole is None else whole), count)
    if data is not None:
        latent = data.new_zeros(()) if latent is None else latent
    extra = {"latent_loss": latent, "data_loss": None if data is None else data.detach().clone()}
    out = extended(type(output))(**{**dict(output.items()), **extra})
    alone = fused or data is None
    if data is None and run.backbone.grid is not None:
        out["loss"] = latent  # a ViT without labels has no other
    elif not alone:
        out["loss"] = run.objective.data * data + latent  # type: ignore[operator]
    run.left = latent if fused else None
    run.missed = False
    if alone and latent is not None and latent.requires_grad:
        run.missed = True
        latent.register_hook(run.took)
    return out


def _before_saving(model: Any, prefix: str, keep_vars: bool) -> None:
    # the next forward would count the last step, but a run that goes on from the checkpoint never sees it
    run: Run = model._latent_run
    if not run.fresh:
        run.tick()
    if world_size() == 1:  # else all ranks have to; `LatentTrainer` does it before a checkpoint
        run.model.latent.terms.rebalance()
