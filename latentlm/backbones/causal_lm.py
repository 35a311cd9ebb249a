"""The decoder, blocks, final norm and output head of any Hugging Face causal LM."""

import dis
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.func import functional_call
from transformers import PreTrainedModel

# Config keys that change the logits after the output matrix, whatever the family (transformers 5.23).
MULTIPLIERS = ("logit_scale", "output_multiplier", "lm_head_multiplier")
WIDTH_SCALINGS = ("logits_scaling", "logits_mup_width_multiplier")
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


@dataclass
class Backbone:
    """The parts of a causal LM that latent heads attach to.

    Attributes:
        decoder: module that turns ids into post-norm states; heads run in its forward hook.
        layers: the blocks in order; a forward hook on one sees its raw output.
        norm: final norm, applied to the raw output of the last block; None where there is none.
        num_layers: number of blocks.
        dim: width of the residual stream.
    """

    decoder: nn.Module
    layers: list[nn.Module]
    norm: nn.Module | None
    num_layers: int
    dim: int


def find_backbone(model: nn.Module, layers_path: str | None = None) -> Backbone:
    """Find decoder, blocks and final norm of a causal LM.

    Tried in this order: `layers_path`; the class transformers records hidden states of; a ModuleList with as many
    blocks as the config counts; the one ModuleList made of the classes that must not be split.

    Args:
        model: a model with its output head, before PEFT and before torch.compile.
        layers_path: dotted name of the ModuleList of blocks, where the search fails or should be overruled.
    """
    model = _accepted(model)
    config = model.config.get_text_config()
    decoder = model.get_decoder()
    if isinstance(decoder, nn.Linear) or not _lists(decoder):
        decoder = model.base_model  # some models call their output matrix `decoder`
    layers = _named_layers(model, layers_path) if layers_path else _search(model, decoder, config)
    inside = set(decoder.modules())
    if layers[0] not in inside or (decoder is model and model.get_output_embeddings() is not None):
        # A decoder that is the whole causal LM returns logits; the child that holds the blocks returns states.
        decoder = next(child for child in model.children() if layers[0] in set(child.modules()))
    dim = _width(model, layers, getattr(config, "hidden_size", None))
    return Backbone(decoder, layers, _final_norm(model, decoder, layers, dim), len(layers), dim)


def hidden_state(output: object) -> Tensor:
    """State in the output of a block: a tensor, or the first entry of a tuple, namedtuple or list."""
    state = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(state, Tensor):
        raise ValueError(f"a block returned {type(output).__name__} without a state in front: pass another layers_path")
    return state


def readout(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Latents after the final norm -> logits of the model's own output head.

        logits = cap * tanh(scale * (head(z)) / cap)      (scale and cap as the config says, else 1 and none)

    Gradient:  through the latents only; the weights of the head are detached, tied embeddings included.

    To be made anew for each forward, because PEFT replaces modules and FSDP replaces parameters after attaching. The
    first call looks the head up, and gathers it where it is sharded.
    """
    assert isinstance(model, PreTrainedModel), "find_backbone accepts no other"
    return partial(_logits, model, [])


def _logits(model: PreTrainedModel, head: list[tuple[nn.Module, dict[str, Tensor]]], latents: Tensor) -> Tensor:
    if not head:
        head += [(module, {name: _frozen(w) for name, w in module.named_parameters()}) for module in _head(model)]
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


def _head(model: PreTrainedModel) -> list[nn.Module]:
    """Children of the model from behind the one that embeds the ids up to the one with the output matrix."""
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


def _accepted(model: nn.Module) -> PreTrainedModel:
    """The model itself, unless hooks on it would be bypassed or its heads lost."""
    name = type(model).__name__
    peft = [("peft.peft_model", "PeftModel"), ("peft.tuners.tuners_utils", "BaseTunerLayer")]
    if _any_instance(model, peft):
        raise ValueError(f"{name} is wrapped by PEFT: attach before get_peft_model")
    dynamo = [("torch._dynamo.eval_frame", "OptimizedModule")]
    if _any_instance(model, dynamo) or any(module._compiled_call_impl is not None for module in model.modules()):
        raise ValueError(f"{name} is already compiled: attach before torch.compile")
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"{name} is not a transformers PreTrainedModel: pass one loaded by AutoModelForCausalLM")
    return model


def _any_instance(model: nn.Module, classes: list[tuple[str, str]]) -> bool:
    # A class whose module was never imported has no instances, so nothing is imported to find out.
    found = tuple(getattr(sys.modules[module], name) for module, name in classes if module in sys.modules)
    return any(isinstance(module, found) for module in model.modules())


def _named_layers(model: PreTrainedModel, layers_path: str) -> list[nn.Module]:
    blocks = dict(model.named_modules()).get(layers_path)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        raise ValueError(f"{type(model).__name__} has no ModuleList at layers_path={layers_path!r}: see print(model)")
    return list(blocks)


def _search(model: PreTrainedModel, decoder: nn.Module, config: object) -> list[nn.Module]:
    count = getattr(config, "num_hidden_layers", None)
    if count is None:
        raise ValueError(f"config of {type(model).__name__} has no num_hidden_layers: pass layers_path='model.layers'")
    lists = _lists(decoder)
    for layers in (_recorded(decoder, config, count), _counted(lists, count), _unsplit(model, lists)):
        if layers:
            return layers
    raise ValueError(f"found no list of {count} blocks in {type(model).__name__}: pass layers_path='model.layers'")


def _lists(module: nn.Module) -> list[nn.ModuleList]:
    """ModuleLists with entries, the shallowest first, then the largest."""
    named = [(name, sub) for name, sub in module.named_modules() if isinstance(sub, nn.ModuleList) and len(sub)]
    size = {name: sum(weight.numel() for weight in sub.parameters()) for name, sub in named}
    return [sub for _, sub in sorted(named, key=lambda pair: (pair[0].count("."), -size[pair[0]]))]


def _recorded(decoder: nn.Module, config: object, count: int) -> list[nn.Module] | None:
    """Instances of the class whose outputs transformers records as hidden states."""
    specs = [getattr(module, "_can_record_outputs", None) or {} for module in decoder.modules()]
    spec = next((spec["hidden_states"] for spec in specs if "hidden_states" in spec), None)
    for entry in spec if isinstance(spec, list) else [spec]:
        count = getattr(config, getattr(entry, "num_hidden_layers_key", "num_hidden_layers"), count)
    classes = [getattr(entry, "target_class", entry) for entry in (spec if isinstance(spec, list) else [spec])]
    classes = tuple(cls for cls in classes if isinstance(cls, type))
    found = [module for module in decoder.modules() if isinstance(module, classes)]
    if len(found) != count:
        return None
    for blocks in _lists(decoder):
        # Hybrid models record a layer nested in their block; the hook belongs outside, where checkpointing ends.
        if len(blocks) == count and all(found[i] in set(block.modules()) for i, block in enumerate(blocks)):
            return list(blocks)
    return found


def _counted(lists: list[nn.ModuleList], count: int) -> list[nn.Module] | None:
    """First list of `count` blocks; a block has parts, a norm among them."""
    fitting = [blocks for blocks in lists if len(blocks) == count and all(map(_is_block, blocks))]
    return list(fitting[0]) if fitting else None


def _is_block(module: nn.Module) -> bool:
    return any(_is_norm(name, part) for name, part in module.named_modules() if part is not module)


def _unsplit(model: PreTrainedModel, lists: list[nn.ModuleList]) -> list[nn.Module] | None:
    names = set(model._no_split_modules or ())
    fitting = [blocks for blocks in lists if all(type(block).__name__ in names for block in blocks)]
    return list(fitting[0]) if len(fitting) == 1 else None


def _is_norm(name: str, module: nn.Module) -> bool:
    label = f"{name.rpartition('.')[2]} {type(module).__name__}".lower()
    return ("norm" in label or "ln_f" in label) and not list(module.children())


def _norm_width(norm: nn.Module) -> int | None:
    weight = getattr(norm, "weight", None)
    if not isinstance(weight, Tensor):
        return None  # a norm without weights fits every width
    return getattr(weight, "ds_shape", weight.shape)[-1]  # ZeRO-3 keeps the true shape of a sharded weight aside


def _width(model: PreTrainedModel, layers: list[nn.Module], dim: int | None) -> int:
    norms = [[sub for name, sub in block.named_modules() if _is_norm(name, sub)] for block in layers]
    widths = [[width for width in map(_norm_width, each) if width] for each in norms]
    if dim is None and widths[0]:
        dim = widths[0][0]
    if dim is None or any(each and dim not in each for each in widths):
        raise ValueError(
            f"blocks found in {type(model).__name__} are not all {dim} wide: pass layers_path='model.layers'"
        )
    return dim


def _final_norm(model: PreTrainedModel, decoder: nn.Module, layers: list[nn.Module], dim: int) -> nn.Module | None:
    """First norm applied after the blocks, in the module that holds them or in one around it."""
    name = next(name for name, module in decoder.named_modules() if module is layers[0])
    while name:
        name, _, child = name.rpartition(".")
        holder = decoder.get_submodule(name)
        for norm in _applied_after(holder, child):
            width = _norm_width(norm)
            if width not in (None, dim):
                raise ValueError(f"blocks of {type(model).__name__} give {dim} values but its final norm takes {width}")
            return norm
    return None


def _applied_after(holder: nn.Module, child: str) -> list[nn.Module]:
    """Norms among the direct children of `holder` that its forward uses after `child`, in order of use.

    Registration order does not tell: some models register the final norm before the blocks or the norm of the
    embeddings behind them, and some apply one norm at both ends. The code of forward names them in order of use.
    """
    norms = {name: module for name, module in holder.named_children() if _is_norm(name, module)}
    code = getattr(inspect.unwrap(type(holder).forward), "__code__", None)
    steps = dis.get_instructions(code) if code else []
    used = [step.argval for step in steps if step.opname in ("LOAD_ATTR", "LOAD_METHOD")]
    if child not in used:
        used = [name for name, _ in holder.named_children()]
    last = len(used) - used[::-1].index(child)
    return [norms[name] for name in used[last:] if name in norms]
