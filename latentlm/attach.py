"""The hooks that make a model collect its own states, run its heads and add their loss.

Every hook is a module-level function that finds its state on the module: then `copy.deepcopy` of the model gives a copy
with a state of its own.
"""

import dataclasses
import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from latentlm.backbones import Backbone, hidden_state, readout
from latentlm.ema import StepClock, trained
from latentlm.monitor import GradientProbe, measure
from latentlm.objective import Objective, total
from latentlm.tap import Depth, resolve_depth
from latentlm.teaching import Reached, teacher_states
from latentlm.types import Context, Report, View

IGNORE = -100


class Run:
    """What one attached model knows between its hooks; holds no weights and is not a module.

    Args:
        model: the causal LM.
        backbone: its parts.
        objective: what is trained.
        wanted: depths read by the terms, of the network itself (None) and of each teacher.
    """

    def __init__(self, model: nn.Module, backbone: Backbone, objective: Objective, wanted: dict[Any, set[Depth]]):
        self.model, self.backbone, self.objective = model, backbone, objective
        self.wanted = {k: {resolve_depth(d, backbone.num_layers) for d in v} for k, v in wanted.items()}
        self.handles: list[Any] = []
        self.clock, self.probe, self.metrics = StepClock(), GradientProbe(), Metrics()
        self.forwards, self.step = 0, None
        self.always = False
        self.can_cache = "use_cache" in inspect.signature(model.forward).parameters
        self.counts: dict[str, Tensor] | None = None
        self.num_items: Tensor | int | None = None
        self.clear()

    def clear(self) -> None:
        """Forget the forward that has ended."""
        self.active, self.reading = False, None
        self.inputs: dict[str, Any] = {}
        self.states: dict[int, Tensor] = {}
        self.teachers: dict[str, dict[int, Tensor]] = {}
        self.loss: Tensor | None = None

    def detach(self) -> None:
        """Remove every hook."""
        for handle in self.handles:
            handle.remove()
        for module in (self.backbone.decoder, *self.backbone.layers):
            module.__dict__.pop("_latent_run", None)

    def tick(self) -> None:
        """Count optimizer steps and let the averaging teachers follow."""
        latent = self.model.latent
        if self.step is None:
            self.step = int(latent.step)
        ticked = self.clock.ticked(w for w in self.model.parameters() if w.requires_grad)
        if ticked:
            self.step += 1
            latent.step.fill_(self.step)
        for kind, teacher in latent.teachers.items():
            above = self.backbone.layers[max(self.wanted[kind]) :]
            weights = trained(self.backbone.decoder, above)
            teacher.start(weights)
            if ticked:
                teacher.update(weights)

    def view(self, states: dict[int, Tensor]) -> View:
        """A view of these states with everything that the call brought along."""
        inputs = self.inputs
        sets = {name: value for name, value in (inputs["latent"] or {}).items() if name != "segments"}
        return View(
            states=states,
            segments=_segments(inputs),
            num_layers=self.backbone.num_layers,
            sets=sets,
            inputs=inputs["input_ids"],
            labels=_next_labels(inputs),
            embed=self.model.get_input_embeddings(),  # type: ignore[operator]
            norm=self.backbone.norm,
            readout=readout(self.model),
        )

    def share(self) -> Tensor | float:
        """Share of this forward in the optimizer step, as the trainer counts it: label tokens here / in all."""
        count, labels = self.inputs["num_items_in_batch"], _next_labels(self.inputs)
        count = self.num_items if count is None else count
        if count is None or labels is None:
            return 1.0
        return (labels != IGNORE).sum() / count


def latent_run(model: nn.Module) -> Run:
    """The state behind a model with heads, through PEFT, DDP, FSDP and compile wrappers."""
    for module in model.modules():
        if "_latent_run" in module.__dict__ and module.__dict__["_latent_run"].model is module:
            return module.__dict__["_latent_run"]
    raise ValueError(f"{type(model).__name__} has no latent heads; call get_latent_model first")


class Metrics:
    """Sums and counts since the last log, so that logged means are exact over micro-batches."""

    def __init__(self):
        self.sums: dict[str, list[Any]] = {}
        self.latest: dict[str, float] = {}

    def add(self, name: str, value: Tensor, count: Tensor | float) -> None:
        """Add a detached sum over `count` values; nothing is synchronised with the host."""
        have = self.sums.setdefault(name, [0.0, 0.0])
        have[0], have[1] = have[0] + value.detach(), have[1] + count

    def report(self, reports: dict[str, Report]) -> None:
        """Add all terms of a forward."""
        for name, report in reports.items():
            self.add(f"{name}/value", report.sum, report.count)
            self.add(f"{name}/weighted", report.weight * report.sum, report.count)


def add_hooks(model: nn.Module, run: Run) -> None:
    """Register every hook of the model on its parts."""
    model._latent_run = run
    for module in (run.backbone.decoder, *run.backbone.layers):
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
    ]


def _store(run: Run, depth: int, state: Tensor) -> None:
    if depth in run.wanted[run.reading]:
        (run.states if run.reading is None else run.teachers[run.reading])[depth] = state


def _before_layer(layer: nn.Module, args: tuple, kwargs: dict) -> None:
    run, depth = layer._latent_run, layer._latent_depth
    if not run.active:
        return
    if depth == 0:
        _store(run, 0, args[0] if args else kwargs["hidden_states"])
    if run.reading is not None and depth == max(run.wanted[run.reading]):
        # before the next block rather than after the last one needed: sharded blocks must finish their own hooks
        raise Reached


def _after_layer(layer: nn.Module, args: tuple, output: Any) -> None:
    run = layer._latent_run
    if run.active:
        _store(run, layer._latent_depth + 1, hidden_state(output))


def _before_model(model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    run = model._latent_run
    run.clear()
    kwargs = dict(kwargs)
    latent = kwargs.pop("latent", None)
    run.active = (model.training or run.always) and torch.is_grad_enabled()
    if (run.active or latent is not None) and run.can_cache:
        # with a cache transformers no longer derives the mask of packed segments, and they would see each other
        kwargs["use_cache"] = False
    if run.active:
        names = ("labels", "shift_labels", "attention_mask", "position_ids", "num_items_in_batch")
        run.inputs = {name: kwargs.get(name) for name in names} | {"latent": latent}
        run.inputs["input_ids"] = kwargs.get("input_ids", args[0] if args else None)
        run.tick()
    return args, kwargs


def _before_decoder(decoder: nn.Module, args: tuple, kwargs: dict) -> None:
    run = decoder._latent_run
    if run.active and run.reading is None:
        for kind in run.model.latent.teachers:
            teacher_states(run, kind, args, kwargs)


def _after_decoder(decoder: nn.Module, args: tuple, output: Any) -> None:
    run = decoder._latent_run
    if not run.active or run.reading is not None:
        return
    terms = run.model.latent.terms
    context = Context(run.view(run.states), {kind: run.view(states) for kind, states in run.teachers.items()})
    reports = run.model.latent(context, run.step)
    run.active = False  # before the backward: a recomputed block must not store again
    run.states, run.teachers = {}, {}
    if not reports:
        return
    share = run.share()
    run.loss = total(reports, share, run.counts)
    run.metrics.report(reports)
    every = run.objective.monitor
    if every and run.forwards % every == 0:
        run.metrics.latest = measure(terms, context)
        scales = {n: run.loss.new_tensor(r.weight) * share / r.count.clamp(min=1) for n, r in reports.items()}
        run.probe.watch(terms, context, reports, run.loss, scales)
    run.forwards += 1


def _after_model(model: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
    run = model._latent_run
    inputs, latent = run.inputs, run.loss
    run.clear()
    if not inputs or isinstance(output, tuple):
        return None
    data = output.get("loss")
    if data is not None:
        labels = _next_labels(inputs)
        count = (labels != IGNORE).sum() if labels is not None else 1
        whole = inputs["num_items_in_batch"]
        run.metrics.add("data/value", data.detach() * (count if whole is None else whole), count)
    latent = latent if latent is not None or data is None else data.new_zeros(())
    extra = {"latent_loss": latent, "data_loss": None if data is None else data.detach().clone()}
    out = _extended(type(output))(**{**dict(output.items()), **extra})
    if data is not None and not kwargs.get("fused_lm_head"):
        out["loss"] = run.objective.data * data + latent
    return out


@cache
def _extended(output: type) -> type:
    # a declared class: data parallel wrappers rebuild outputs from their class and refuse keys added at run time
    fields = [(name, Any, None) for name in ("latent_loss", "data_loss")]
    return dataclasses.make_dataclass(f"Latent{output.__name__}", fields, bases=(output,))


def _segments(inputs: dict[str, Any]) -> Tensor:
    """Segment number of each position: what the data says, else the padding mask, else where positions restart."""
    if inputs["latent"] and "segments" in inputs["latent"]:
        return inputs["latent"]["segments"]
    mask, positions, ids = inputs["attention_mask"], inputs["position_ids"], inputs["input_ids"]
    if mask is not None and mask.dim() == 2:
        return torch.where(mask.bool(), 0, -1)
    if positions is not None and positions.dim() == 2:
        jumps = positions.diff(dim=1, prepend=positions[:, :1] - 1) != 1
        return jumps.cumsum(1)
    if ids is None:
        raise ValueError("latent terms need input_ids, attention_mask or position_ids to know the positions")
    return torch.zeros_like(ids)


def _next_labels(inputs: dict[str, Any]) -> Tensor | None:
    """Labels moved to the position that predicts them."""
    if inputs.get("shift_labels") is not None:
        return inputs["shift_labels"]
    labels = inputs.get("labels")
    return None if labels is None else torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORE)
