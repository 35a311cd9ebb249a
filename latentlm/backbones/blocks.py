"""The blocks and final norm of any network, found by structure and never by the name of a model family."""

import dis
import inspect
import sys
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel

from latentlm.backbones.grid import Grid


@dataclass
class Backbone:
    """The parts of a network that latent heads attach to.

    Attributes:
        decoder: module that turns the input into post-norm states; heads run in its forward hook.
        layers: the blocks in order; a forward hook on one sees its raw output.
        norm: final norm, applied to the raw output of the last block; None where there is none.
        num_layers: number of blocks.
        dim: width of the residual stream.
        grid: how pixels become positions, where the network reads those.
        has_loss: whether the model can compute its own loss.
    """

    decoder: nn.Module
    layers: list[nn.Module]
    norm: nn.Module | None
    num_layers: int
    dim: int
    grid: Grid | None = None
    has_loss: bool = True


def hidden_state(output: object) -> Tensor:
    """State in the output of a block: a tensor, or the first entry of a tuple, namedtuple or list."""
    state = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(state, Tensor):
        raise ValueError(f"a block returned {type(output).__name__} without a state in front: pass another layers_path")
    return state


def accepted(model: nn.Module) -> PreTrainedModel:
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


def named_layers(model: PreTrainedModel, layers_path: str) -> list[nn.Module]:
    """The blocks at a dotted name."""
    blocks = dict(model.named_modules()).get(layers_path)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        raise ValueError(f"{type(model).__name__} has no ModuleList at layers_path={layers_path!r}: see print(model)")
    return list(blocks)


def search(model: PreTrainedModel, decoder: nn.Module, config: object) -> list[nn.Module]:
    """The blocks, found by what transformers records, by their count, or by what must not be split."""
    count = getattr(config, "num_hidden_layers", None)
    if count is None:
        raise ValueError(f"config of {type(model).__name__} has no num_hidden_layers: pass layers_path='model.layers'")
    lists = module_lists(decoder)
    for layers in (_recorded(decoder, config, count), _counted(lists, count), _unsplit(model, lists)):
        if layers:
            return layers
    raise ValueError(f"found no list of {count} blocks in {type(model).__name__}: pass layers_path='model.layers'")


def module_lists(module: nn.Module) -> list[nn.ModuleList]:
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
    for blocks in module_lists(decoder):
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
    return getattr(weight, "ds_shape", weight.shape)[-1]  # ZeRO-3 keeps the whole shape here


def block_width(model: PreTrainedModel, layers: list[nn.Module], dim: int | None) -> int:
    """Width of the residual stream, checked against the norms of the blocks."""
    norms = [[sub for name, sub in block.named_modules() if _is_norm(name, sub)] for block in layers]
    widths = [[width for width in map(_norm_width, each) if width] for each in norms]
    if dim is None and widths[0]:
        dim = widths[0][0]
    if dim is None or any(each and dim not in each for each in widths):
        raise ValueError(
            f"blocks found in {type(model).__name__} are not all {dim} wide: pass layers_path='model.layers'"
        )
    return dim


def final_norm(model: PreTrainedModel, decoder: nn.Module, layers: list[nn.Module], dim: int) -> nn.Module | None:
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

    Registration order does not say: some models register the final norm before the blocks or the norm of the
    embeddings after them, and some apply one norm at both ends. The code of forward names them in order of use.
    """
    norms = {name: module for name, module in holder.named_children() if _is_norm(name, module)}
    code = getattr(inspect.unwrap(type(holder).forward), "__code__", None)
    steps = dis.get_instructions(code) if code else []
    used = [step.argval for step in steps if step.opname in ("LOAD_ATTR", "LOAD_METHOD")]
    if child not in used:
        used = [name for name, _ in holder.named_children()]
    last = len(used) - used[::-1].index(child)
    return [norms[name] for name in used[last:] if name in norms]
