"""The hooks that make a model collect its own states, run its heads and add their loss.

Every hook is a module-level function that finds its `LatentState` on the module: then `copy.deepcopy` of the model
gives a copy with a state of its own.

| on | when | does | in |
|---|---|---|---|
| model | before | begins a `Forward`; no cache, mask of hidden spans, first copies of teachers | here |
| decoder | before | runs the teachers, each a forward of the decoder inside this one | here |
| decoder | before | leaves out copies of units that the network does not read | partial_forward.py |
| decoder | before | runs the network on views of another size, likewise | vit_masking.py |
| blocks | before, after | store their input (first block) and their output; end a teacher's forward | here |
| decoder | after | runs the heads: states -> `StepContext` -> losses -> their weighted sum | here |
| model | after | adds that sum to the loss, ends the `Forward` | here |
| output head | before, after | one forward only: no logits where there is no label | sparse_lm_head.py |
| projection, embeddings, rotary, blocks of a ViT | after, before | masked and dropped patches | vit_masking.py |
| input embeddings | after | put trained vectors where the batch has predictor tokens | here |
| latent loss | backward | accumulation; whether a backward came; scale | optimizer_steps.py, gradients.py |
| states | backward | gradient of each term against all others, every N steps | gradients.py |
| any optimizer | after a step | counts it: running centres, weights and teachers move | optimizer_steps.py |
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentlm.attach.attachment import LatentHeads
from latentlm.attach.forward_io import Forward, ForwardInputs, with_latent_losses
from latentlm.attach.partial_forward import own_part, whole_output
from latentlm.attach.sparse_lm_head import skip_unlabelled
from latentlm.attach.state import LatentState
from latentlm.attach.teacher_forward import Reached, check_momentum, start_teacher, teacher_states
from latentlm.attach.vit_masking import local_states, masking_hooks
from latentlm.backbones import hidden_state
from latentlm.components.attention_mask import as_attention_mask, seen
from latentlm.monitor.image_batches import STEPS, check_image_batch
from latentlm.objective.objective import total


def add_hooks(state: LatentState) -> None:
    """Register every hook of the model on its parts."""
    model, backbone, handles = state.model, state.backbone, state.attachment.handles
    for module in (model, backbone.decoder, *backbone.layers):
        module.__dict__["_latent_state"] = state  # not through setattr: the state refers back to the model
    for depth, layer in enumerate(backbone.layers):
        layer.__dict__["_latent_depth"] = depth
        handles.append(layer.register_forward_pre_hook(_before_layer, with_kwargs=True))
        handles.append(layer.register_forward_hook(_after_layer))
    handles += [
        model.register_forward_pre_hook(_before_model, with_kwargs=True),
        backbone.decoder.register_forward_pre_hook(_before_decoder, with_kwargs=True),
        backbone.decoder.register_forward_hook(_after_decoder),
        model.register_forward_hook(_after_model, with_kwargs=True),
        *masking_hooks(state),
    ]
    if hasattr(state.attachment.heads, "predictor_tokens"):
        embeddings = model.get_input_embeddings()
        embeddings.__dict__["_latent_state"] = state
        handles.append(embeddings.register_forward_hook(_after_embeddings))


def _eager(hook: Callable) -> Any:
    """Keep a hook out of compiled graphs: how many positions the heads read depends on the data."""
    return torch.compiler.disable(hook)


def _check_trained(latent: LatentHeads) -> None:
    if not all(weight.requires_grad for weight in latent.terms.parameters()):
        raise ValueError(
            "latent heads: some of their weights are not trained; with PEFT use latentlm.latent_lora_config, "
            "which trains and saves them in full"
        )


def _store(state: LatentState, forward: Forward, depth: int, values: Tensor) -> None:
    forward.compiled = torch.compiler.is_compiling()
    if not forward.compiled:  # a graph that is made once cannot count
        forward.reach(depth)
    if depth in forward.blocks[forward.teacher]:
        forward.store(depth, values)


def _before_layer(layer: Any, args: tuple, kwargs: dict) -> None:
    state: LatentState = layer._latent_state
    forward, depth = state.collecting, layer._latent_depth
    if forward is None:
        return
    if depth == 0:
        _store(state, forward, 0, args[0] if args else kwargs["hidden_states"])
    if forward.teacher is not None and depth == max(forward.blocks[forward.teacher]):
        # before the next block rather than after the last one needed: sharded blocks must finish their own hooks
        raise Reached


def _after_layer(layer: Any, args: tuple, output: Any) -> None:
    state: LatentState = layer._latent_state
    forward = state.collecting
    if forward is not None:
        _store(state, forward, layer._latent_depth + 1, hidden_state(output))


@_eager
def _before_model(model: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    state: LatentState = model._latent_state
    if state.forward is not None and not state.forward.is_own:
        return args, kwargs  # a ViT is its own encoder: this is a teacher's forward, or that of the local views
    state.drop_forward()
    state.kept = None
    grid = state.backbone.grid
    first = model.main_input_name if grid is None else "pixel_values"
    named = dict(kwargs) if first in kwargs or not args else {**kwargs, first: args[0]}
    latent = kwargs.pop("latent", None)
    if grid is not None and isinstance(pixels := named.get(first), Tensor) and pixels.dim() == 4:
        keep = latent.get("keep") if latent is not None and model.training and torch.is_grad_enabled() else None
        if not args or first in kwargs or len(args) == 1:
            args = args if first in kwargs else ()
            kwargs = {name: value for name, value in kwargs.items() if name != first} | grid.inputs(pixels, keep)
    trains = model.training and torch.is_grad_enabled()
    if (trains or latent is not None) and state.attachment.can_cache:
        # with a cache transformers no longer derives the mask of packed segments, and they would see each other
        kwargs["use_cache"] = False
    if latent is not None and "hidden" in latent:
        table = seen(latent["segments"], latent["hidden"])
        kwargs["attention_mask"] = as_attention_mask(table, model.config._attn_implementation, model.dtype)
    if trains:
        heads = state.attachment.heads
        if state.checked != id(heads):
            _check_trained(heads)
            state.checked = id(heads)
        state.steps.begin()
        for kind in heads.teachers:
            check_momentum(state.attachment, kind, state.steps.total)
            start_teacher(state.attachment, kind)
        running = state.running()
        state.forward = Forward(ForwardInputs.of(named), state.attachment.blocks_of(running), running)
        if state.backbone.grid is not None and state.image_batches < STEPS:
            state.image_batches += 1
            pixels, latent = state.forward.inputs.pixel_values, state.forward.inputs.latent
            check_image_batch(pixels, latent, state.backbone.grid, state.objective)
    elif torch.is_grad_enabled():
        state.steps.begin_without_terms()
    return args, kwargs


@_eager
def _after_embeddings(embeddings: Any, args: tuple, output: Tensor) -> Tensor | None:
    state: LatentState = embeddings._latent_state
    forward = state.collecting
    places = None if forward is None or forward.in_terms else (forward.inputs.latent or {}).get("predictor_tokens")
    if forward is None or places is None:
        return None
    places = places if forward.part is None else forward.part.of(places)
    tokens: Tensor = state.attachment.heads.predictor_tokens  # type: ignore[assignment]
    return torch.where((places >= 0)[..., None], tokens.to(output.dtype)[places.clamp(min=0)], output)


@_eager
def _before_decoder(decoder: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    state: LatentState = decoder._latent_state
    forward = state.collecting
    if forward is None or not forward.is_own:
        return None
    for kind in (kind for kind in state.attachment.heads.teachers if forward.blocks[kind]):
        teacher_states(state.attachment, forward, kind, args, kwargs)
    local_states(state, forward, decoder, kwargs)
    forward.part = None if args else own_part(forward, state.attachment.specs, kwargs, state.model.config)
    return None if forward.part is None else (args, forward.part.arguments(kwargs))


@_eager
def _after_decoder(decoder: Any, args: tuple, output: Any) -> Any:
    state: LatentState = decoder._latent_state
    forward = state.collecting
    if forward is None or not forward.is_own:
        return output
    model, inputs = state.model, forward.inputs
    if skipped := forward.blocks[None] - forward.states.keys():
        raise ValueError(
            f"block {min(skipped)} was left out of this forward (layerdrop?); latent terms need its state: set "
            "layerdrop to 0"
        )
    if forward.part is not None:
        forward.tapped = forward.states
        forward.states = {depth: forward.part.back(state) for depth, state in forward.tapped.items()}
        output = whole_output(output, forward.part)
    context = state.context(forward)
    forward.in_terms = True
    losses = model.latent(context)
    forward.collecting = False  # before the backward: a recomputed block must not store again
    if not forward.compiled and state.backbone.grid is None:
        forward.lm_head_hooks = skip_unlabelled(model, inputs)
    forward.states, forward.tapped, forward.local_states, forward.teacher_states = {}, {}, {}, {}
    if not losses:
        return output
    share = state.share(inputs)
    forward.loss = total(losses, share, state.steps.counts)
    state.steps.accumulation.watch(forward.loss)
    state.monitoring.metrics.report(losses)
    state.monitoring.look(state.attachment, forward, state.steps, context, losses, share)
    return output


def _weighed(model: Any, data: Tensor, output: Any, lm_weight: float) -> Tensor:
    """The data loss with its weight; what balances experts keeps its own, which the model has already given it."""
    balancing, share = output.get("aux_loss"), getattr(model, "router_aux_loss_coef", None)
    if lm_weight == 1 or not isinstance(balancing, Tensor) or share is None:
        return lm_weight * data
    return lm_weight * data + (1 - lm_weight) * share * balancing.to(data.device)


@_eager
def _after_model(model: Any, args: tuple, kwargs: dict, output: Any) -> Any:
    state: LatentState = model._latent_state
    if state.forward is not None and not state.forward.is_own:
        return None
    forward = state.drop_forward()
    if forward is None:
        return None
    inputs, latent = forward.inputs, forward.loss
    if isinstance(output, tuple):
        raise ValueError("return_dict=False: the latent terms need the outputs by name; leave it out in training")
    data, fused = output.get("loss"), bool(kwargs.get("fused_lm_head"))
    if fused and not state.trainer.adds_latent:
        raise ValueError(
            "latent terms: this trainer reads its loss off a fused head, without them; use LatentSFTTrainer, "
            "LatentDPOTrainer or LatentGRPOTrainer"
        )
    if data is not None and state.trainer.select is None:
        count, whole = inputs.num_labels(), inputs.num_items_in_batch
        state.monitoring.metrics.add("data/value", data.detach() * (count if whole is None else whole), count)
    if data is not None:
        latent = data.new_zeros(()) if latent is None else latent
    extra = {"latent_loss": latent, "data_loss": None if data is None else data.detach().clone()}
    out = with_latent_losses(type(output))(**{**dict(output.items()), **extra})
    alone = fused or data is None
    if data is None and (state.backbone.grid is not None or not state.backbone.has_loss):
        out["loss"] = latent  # there is no other
    elif not alone:
        out["loss"] = _weighed(model, data, output, state.objective.lm_weight) + latent  # type: ignore[operator]
    state.trainer.latent_loss = latent if fused else None
    state.steps.pending_backward = False
    if alone and latent is not None and latent.requires_grad:
        state.steps.pending_backward = True
        latent.register_hook(state.steps.backward_reached)
    return out
