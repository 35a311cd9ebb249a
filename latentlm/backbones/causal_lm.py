"""The decoder, blocks, final norm and output head of any Hugging Face causal LM."""

from collections.abc import Callable, Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.func import functional_call
from transformers import PreTrainedModel

from latentlm.backbones.blocks import Backbone, block_width, final_norm, module_lists, named_layers, search

# Config keys that change the logits after the output matrix, whatever the family (transformers 5.23).
MULTIPLIERS = ("logit_scale", "output_multiplier", "lm_head_multiplier")
WIDTH_SCALINGS = ("logits_scaling", "logits_mup_width_multiplier")
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


def find_causal_lm(model: PreTrainedModel, layers_path: str | None = None) -> Backbone:
    """Find decoder, blocks and final norm of a causal LM.

    Tried in this order: `layers_path`; the class transformers records hidden states of; a ModuleList with as many
    blocks as the config counts; the one ModuleList made of the classes that must not be split.

    Args:
        model: a model with its output head, before PEFT and before torch.compile.
        layers_path: dotted name of the ModuleList of blocks, where the search fails or should be overruled.
    """
    config = model.config.get_text_config()
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(f"{type(model).__name__} is an encoder-decoder; latent terms need a causal LM or a ViT")
    decoder = model.get_decoder()
    if isinstance(decoder, nn.Linear) or not module_lists(decoder):
        decoder = model.base_model  # some models call their output matrix `decoder`
    layers = named_layers(model, layers_path) if layers_path else search(model, decoder, config)
    if len(set(layers)) < len(layers):
        raise ValueError(
            f"{type(model).__name__} runs one block several times (shared weights), so its depths cannot be told "
            "apart; use a network in which every block is another"
        )
    inside = set(decoder.modules())
    if layers[0] not in inside or (decoder is model and model.get_output_embeddings() is not None):
        # A decoder that is the whole causal LM returns logits; the child that holds the blocks returns states.
        decoder = next(child for child in model.children() if layers[0] in set(child.modules()))
    dim = block_width(model, layers, getattr(config, "hidden_size", None))
    has_loss = model.get_output_embeddings() is not None
    return Backbone(decoder, layers, final_norm(model, decoder, layers, dim), len(layers), dim, has_loss=has_loss)


def readout(model: nn.Module, instead: Mapping[int, Tensor] | None = None) -> Callable[[Tensor], Tensor]:
    """Latents after the final norm -> logits of the model's output head, or of a copy of it.

        logits = cap * tanh(scale * (head(z)) / cap)      (scale and cap as the config says, else 1 and none)

    Gradient:  through the latents only; the weights of the head are detached, tied embeddings included.

    Make a new one for each forward, because PEFT replaces modules and FSDP replaces parameters after attaching. The
    first call looks the head up, and gathers it where it is sharded.

    Args:
        model: a causal LM.
        instead: what stands in the place of a weight, by the identity of that weight.
    """
    assert isinstance(model, PreTrainedModel), "find_backbone accepts no other"
    return partial(_logits, model, instead or {}, [])


def _logits(
    model: PreTrainedModel,
    instead: Mapping[int, Tensor],
    head: list[tuple[nn.Module, dict[str, Tensor]]],
    latents: Tensor,
) -> Tensor:
    if not head:
        for module in head_modules(model):
            weights = {name: _frozen(instead.get(id(w), w)) for name, w in module.named_parameters()}
            head.append((module, weights))
    logits = latents
    for module, weights in head:
        for weight in weights.values():
            logits = logits.to(weight.dtype)
        if isinstance(module, nn.Linear):
            # Not a call: FSDP's hooks on the head would put the trainable weights back.
            logits = F.linear(logits, weights["weight"], weights.get("bias"))
        else:
            logits = functional_call(module, weights, (logits,))
    config = model.config.get_text_config()
    scale, cap = _scale(config), _first(config, SOFTCAPS)
    logits = logits if scale == 1 else logits * scale
    return logits if cap is None else cap * (logits / cap).tanh()


def head_modules(model: PreTrainedModel) -> list[nn.Module]:
    """What turns latents into logits: children after the one that embeds the ids, up to that with the output matrix."""
    output = model.get_output_embeddings()
    if output is None:
        raise ValueError(f"{type(model).__name__} has no output head: load it with AutoModelForCausalLM")
    children = list(model.children())
    first = _holder(children, model.get_input_embeddings())
    last = _holder(children, output)
    if first == last:
        return [output]
    # A head registered before the body is a single child: nothing says what else would belong to it.
    return children[first + 1 : last + 1] if first < last else [children[last]]


def _holder(children: list[nn.Module], part: nn.Module) -> int:
    return next(i for i, child in enumerate(children) if part in set(child.modules()))


def _frozen(weight: Tensor) -> Tensor:
    return (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach()


def _scale(config: object) -> float:
    scale = _first(config, MULTIPLIERS)
    if scale is not None:
        return scale
    # Width scaling shrinks the logits of a wide model; families disagree whether the number is the factor or the
    # divisor, so its side of 1 decides.
    scale = _first(config, WIDTH_SCALINGS) or 1.0
    return min(scale, 1 / scale)


def _first(config: object, keys: tuple[str, ...]) -> float | None:
    values = (getattr(config, key, None) for key in keys)
    return next((value for value in values if value is not None), None)
