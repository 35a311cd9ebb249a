"""The hooks that make a model collect its own states, run its heads and add their loss.

Every hook is a module-level function that finds its state on the module: then `copy.deepcopy` of the model gives a copy
with a state of its own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from latentlm.attach.attention_mask import as_attention_mask, seen
from latentlm.attach.forward_io import Call
from latentlm.attach.monitoring import look
from latentlm.attach.outputs import extended
from latentlm.attach.sparse_lm_head import skip_unlabelled
from latentlm.attach.state import Run
from latentlm.attach.teacher_forward import Reached, teacher_heads, teacher_states
from latentlm.attach.vit_masking import selecting_hooks
from latentlm.backbones import hidden_state
from latentlm.distributed.collectives import world_size
from latentlm.objective.objective import total
from latentlm.types import StepContext


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
    if latent is not None and "hidden" in latent:
        table = seen(latent["segments"], latent["hidden"])
        kwargs["attention_mask"] = as_attention_mask(table, model.config._attn_implementation, model.dtype)
    if run.active:
        run.call = Call.read(named)
        if run.fresh:
            _check_trained(model.latent)
        if run.tick() and run.missed:
            raise ValueError(
                "latent terms: the last step was made without them, no backward went through outputs.latent_loss; "
                "use LatentTrainer (no label smoothing, no compute_loss_func) or add it to your own loss"
            )
        run.accumulating.forward()
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
    context = StepContext(
        run.view(run.states, read), {kind: run.view(s, read, kind) for kind, s in run.teachers.items()}
    )
    context.teacher_heads = {kind: teacher_heads(run, kind) for kind in run.teachers}
    reports = latent(context)
    run.active = False  # before the backward: a recomputed block must not store again
    run.passing = [] if run.compiled or run.backbone.grid is not None else skip_unlabelled(run.model, call)
    run.states, run.teachers = {}, {}
    if not reports:
        return
    share = run.share(call)
    run.loss = total(reports, share, run.counts)
    run.accumulating.watch(run.loss)
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
        out["loss"] = run.objective.lm_weight * data + latent  # type: ignore[operator]
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
