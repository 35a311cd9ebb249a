"""The parts found in a causal LM are the ones its own forward uses."""

import re
from dataclasses import dataclass
from functools import lru_cache

import pytest
import torch
from checkpointing import recompute
from tiny_models import DIM, FAMILIES, NUM_LAYERS, TINY, VOCAB, build, ids
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from latentlm.backbones import Backbone, find_backbone, hidden_state, readout

every = pytest.mark.parametrize("name", FAMILIES)


@dataclass
class Run:
    """One forward of a tiny model, seen by hooks and by the model itself."""

    model: PreTrainedModel
    backbone: Backbone
    raw: list[Tensor]  # input of the first block, then the raw output of each block, as hooks saw them
    own: tuple[Tensor, ...]  # the model's own hidden_states
    last: Tensor  # first output of the decoder
    logits: Tensor


def _watch(backbone: Backbone) -> tuple[list[tuple[int, Tensor]], list[Tensor], list]:
    calls, first, handles = [], [], []
    for index, block in enumerate(backbone.layers):
        store = lambda _m, _a, output, index=index: calls.append((index, hidden_state(output)))  # noqa: E731
        handles.append(block.register_forward_hook(store))
    keep = lambda _m, args, kwargs: first.append(args[0] if args else kwargs["hidden_states"])  # noqa: E731
    handles.append(backbone.layers[0].register_forward_pre_hook(keep, with_kwargs=True))
    return calls, first, handles


@lru_cache
def run(name: str) -> Run:
    model = build(name)
    backbone = find_backbone(model)
    calls, first, handles = _watch(backbone)
    last = []
    handles.append(backbone.decoder.register_forward_hook(lambda _m, _a, output: last.append(output[0])))
    with torch.no_grad():
        output = model(input_ids=ids(), output_hidden_states=True)
    for handle in handles:
        handle.remove()
    assert [index for index, _ in calls] == list(range(backbone.num_layers)), "each block fires once, in order"
    raw = first + [state for _, state in calls]
    return Run(model, backbone, raw, output.hidden_states, last[0], output.logits)


@every
def test_blocks_are_all_blocks(name):
    backbone = run(name).backbone
    assert backbone.num_layers == len(backbone.layers) == NUM_LAYERS
    assert backbone.dim == DIM
    assert all(state.shape == (2, 12, DIM) for state in run(name).raw)


@every
def test_states_are_those_of_the_model(name):
    raw, own = run(name).raw, run(name).own
    assert len(own) == NUM_LAYERS + 1
    start = 1 if TINY[name].shifted else 0
    for mine, theirs in zip(raw[start : start + NUM_LAYERS], own[:-1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


@every
def test_norm_is_the_final_norm(name):
    seen = run(name)
    assert (seen.backbone.norm is not None) == TINY[name].has_norm
    latents = seen.raw[-1] if seen.backbone.norm is None else seen.backbone.norm(seen.raw[-1])
    torch.testing.assert_close(latents, seen.own[-1])
    torch.testing.assert_close(latents, seen.last)


@every
def test_readout_gives_the_logits(name):
    seen = run(name)
    assert seen.logits.shape == (2, 12, VOCAB)
    torch.testing.assert_close(readout(seen.model)(seen.last), seen.logits, rtol=1e-5, atol=1e-5)


@every
def test_readout_trains_the_latents_only(name):
    model = run(name).model
    latents = run(name).last.detach().clone().requires_grad_()
    weights = list(model.parameters())
    grads = torch.autograd.grad(readout(model)(latents).square().sum(), [latents, *weights], allow_unused=True)
    assert grads[0].abs().sum() > 0
    assert all(grad is None for grad in grads[1:])


@every
@pytest.mark.parametrize("reentrant", [False, True])
def test_blocks_fire_once_in_a_forward_under_gradient_checkpointing(name, reentrant):
    model = build(name).train()
    if not model.supports_gradient_checkpointing:
        pytest.skip("the architecture has no gradient checkpointing")
    recompute(model, use_reentrant=reentrant)
    model.enable_input_require_grads()
    backbone = find_backbone(model)
    calls, _, _ = _watch(backbone)
    model(input_ids=ids(), use_cache=False)  # no backward: older transformers fire hooks again where it recomputes
    assert [index for index, _ in calls] == list(range(NUM_LAYERS))
    assert all(state.requires_grad for _, state in calls)


def test_layers_path_overrules_the_search():
    model = build("llama")
    assert find_backbone(model, layers_path="model.layers") == find_backbone(model)
    model.model.other = nn.ModuleList(list(model.model.layers)[:2])
    assert find_backbone(model, layers_path="model.other").num_layers == 2


def test_layers_path_names_one_of_several_stacks():
    backbone = find_backbone(_blt(), layers_path="model.global_transformer.layers")
    assert (backbone.num_layers, backbone.dim) == (25, 2048)


def test_decoder_returns_states_where_the_model_names_itself_or_its_output_matrix():
    model = build("llama4_text")
    assert model.get_decoder() is model
    assert find_backbone(model).decoder is model.model
    model = build("modernbert-decoder")
    assert isinstance(model.get_decoder(), nn.Linear)
    assert find_backbone(model).decoder is model.model


def test_hybrid_blocks_are_whole():
    model = build("zamba2")
    assert find_backbone(model).layers == list(model.model.layers)


def test_hidden_state_of_every_kind_of_output():
    state = torch.ones(1, 2, 3)
    for output in (state, (state, None), [state], torch.return_types.max((state, state))):
        assert hidden_state(output) is state
    for output in (None, (), {"state": state}):
        with pytest.raises(ValueError, match="pass another layers_path"):
            hidden_state(output)


class Blockless(PreTrainedModel):
    config_class = PreTrainedConfig

    def __init__(self):
        super().__init__(PreTrainedConfig(num_hidden_layers=2, hidden_size=4))
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])


def _blt() -> nn.Module:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model("blt"))


def _xlm() -> nn.Module:
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model("xlm", emb_dim=32, n_layers=2, n_heads=4, vocab_size=97)
    )


def _reformer() -> nn.Module:
    config = AutoConfig.for_model(
        "reformer",
        is_decoder=True,
        hidden_size=32,
        attn_layers=["local", "local"],
        num_attention_heads=4,
        attention_head_size=8,
        feed_forward_size=64,
        vocab_size=97,
        axial_pos_shape=[8, 16],
        axial_pos_embds_dim=[16, 16],
        max_position_embeddings=128,
    )
    return AutoModelForCausalLM.from_config(config)


def _compiled_in_place() -> nn.Module:
    model = build("llama")
    model.model.layers[1].compile(backend="eager")
    return model


def _peft() -> nn.Module:
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(build("llama"), peft.LoraConfig(r=2, target_modules=["q_proj"]))


@pytest.mark.parametrize(
    ("make", "layers_path", "message"),
    [
        (_blt, None, "config of BltForCausalLM has no num_hidden_layers: pass layers_path='model.layers'"),
        (_xlm, None, "found no list of 2 blocks in XLMWithLMHeadModel: pass layers_path='model.layers'"),
        (Blockless, None, "found no list of 2 blocks in Blockless: pass layers_path='model.layers'"),
        (_reformer, None, "blocks of ReformerModelWithLMHead give 32 values but its final norm takes 64"),
        (lambda: nn.Linear(2, 2), None, "Linear is not a transformers PreTrainedModel"),
        (lambda: torch.compile(build("llama"), backend="eager"), None, "OptimizedModule is already compiled"),
        (_compiled_in_place, None, "LlamaForCausalLM is already compiled: attach before torch.compile"),
        (_peft, None, "PeftModel is wrapped by PEFT: attach before get_peft_model"),
        (lambda: _peft().base_model.model, None, "LlamaForCausalLM is wrapped by PEFT"),
        (lambda: build("llama"), "model.blocks", "LlamaForCausalLM has no ModuleList at layers_path='model.blocks'"),
        (lambda: build("llama"), "model.norm", "LlamaForCausalLM has no ModuleList at layers_path='model.norm'"),
    ],
)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # read by peft 0.21
def test_refusals_are_one_line_with_the_fix(make, layers_path, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        find_backbone(make(), layers_path)
    assert "\n" not in str(caught.value)


def test_readout_needs_an_output_head():
    with pytest.raises(ValueError, match="LlamaModel has no output head: load it with AutoModelForCausalLM"):
        readout(build("llama").model)(torch.zeros(1, 1, DIM))


def test_blocks_of_different_widths_are_refused():
    model = build("llama")
    model.model.layers[2].input_layernorm = nn.RMSNorm(16)
    model.model.layers[2].post_attention_layernorm = nn.RMSNorm(16)
    with pytest.raises(ValueError, match="blocks found in LlamaForCausalLM are not all 32 wide: pass layers_path"):
        find_backbone(model)
