"""Attaching heads to any architecture: what is read, what is trained, and what stays exactly as it was."""

import copy
from dataclasses import dataclass
from functools import lru_cache

import pytest
import torch
import transformers
from attached_models import POINTWISE, batch_of, checkpointed, documents
from checkpointing import keep_activations
from packaging.version import Version
from tiny_models import FAMILIES, TINY, build, ids
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import latentlm
from latentlm import get_latent_model, remove_latent
from latentlm.attach.leak_checks import mixes_segments
from latentlm.attach.state import latent_state

# attention that sees across packed segments: no mask is derived from the positions (transformers 5.24)
UNMASKED = {
    "bart",
    "bert",
    "bloom",
    "electra",
    "gpt_oss",
    "mpt",
    "openai-gpt",
    "opt",
    "roberta-prelayernorm",
    "xlm-roberta",
}
if Version(transformers.__version__) < Version("5.24"):
    UNMASKED.add("falcon")  # makes its mask without the positions in 5.22 and before

every = pytest.mark.parametrize("name", FAMILIES)
EXACT = {"rtol": 0, "atol": 0}


@dataclass
class Case:
    """A tiny model with heads, and what it gave before it had them."""

    model: nn.Module
    logits: Tensor
    tokens: Tensor


@lru_cache
def case(name: str) -> Case:
    model = build(name)
    before = logits(model), generate(model)
    return Case(get_latent_model(model, {"terms": POINTWISE, "monitor_every": 0}), *before)


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model.eval()(input_ids=ids()).logits


def generate(model: nn.Module) -> Tensor:
    return model.generate(ids()[:1, :4], max_new_tokens=4, do_sample=False)


def step(model: nn.Module) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one training batch."""
    model.train().zero_grad()
    output = model(input_ids=ids(), labels=ids())
    output.loss.backward()
    torch.testing.assert_close(output.loss, output.data_loss + output.latent_loss)
    return output.loss.item(), {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}


def assert_same_step(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-6)
    assert one[1].keys() == other[1].keys()
    scale = max(grad.abs().max() for grad in one[1].values())
    for name, grad in one[1].items():
        torch.testing.assert_close(grad, other[1][name], rtol=1e-4, atol=float(1e-6 * scale), msg=name)


@every
def test_evaluation_and_generation_are_untouched(name):
    seen = case(name)
    torch.testing.assert_close(logits(seen.model), seen.logits, **EXACT)
    torch.testing.assert_close(generate(seen.model), seen.tokens, **EXACT)


@every
def test_taps_read_the_states_of_the_model(name):
    model, found = case(name).model.train(), []
    handle = model.latent.register_forward_pre_hook(lambda _m, args: found.append(args[0]))
    own = model(input_ids=ids(), output_hidden_states=True).hidden_states
    handle.remove()
    (context,) = found
    shift = 1 if TINY[name].shifted else 0
    assert context.view.states.keys() == {1, 2, 4}
    for depth in (1, 2):
        torch.testing.assert_close(context.view.states[depth], own[depth - shift], **EXACT)
    raw = context.view.states[4]
    torch.testing.assert_close(raw if context.view.norm is None else context.view.norm(raw), own[-1])
    assert context.teacher_views["ema"].states.keys() == {3}
    torch.testing.assert_close(context.teacher_views["ema"].states[3], own[3 - shift])  # it starts as a copy


@every
def test_gradients_reach_every_block_and_every_head(name):
    model = case(name).model.train()
    model.zero_grad()
    model(input_ids=ids(), labels=ids()).latent_loss.backward()
    for part in (*latent_state(model).backbone.layers, *(term.predictor for _, term in model.latent.terms.items())):
        assert any(w.grad is not None and w.grad.abs().sum() > 0 for w in part.parameters())
    model.zero_grad()


@every
def test_activation_checkpointing_changes_nothing(name):
    model = case(name).model
    if not model.supports_gradient_checkpointing:
        pytest.skip("the architecture has no activation checkpointing")
    plain = step(model)
    for kind in ("not reentrant", "reentrant"):
        assert_same_step(step(checkpointed(model, kind)), plain)
    keep_activations(model)
    model.disable_input_require_grads()
    model.zero_grad()


@every
def test_checkpoint_is_plain_and_complete(name, tmp_path):
    seen = case(name)
    seen.model.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(plain), seen.logits, **EXACT)
    again = latentlm.from_pretrained(tmp_path)
    assert again.latent.step == seen.model.latent.step
    assert again.state_dict().keys() == seen.model.state_dict().keys()
    assert_same_step(step(again), step(seen.model))
    assert remove_latent(again) is again
    assert again.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(logits(again), seen.logits, **EXACT)


@every
def test_copy_is_independent(name):
    if name == "recurrent_gemma":
        pytest.skip("it keeps a state with a graph, so that no copy can be made with or without heads")
    model = case(name).model
    before = step(model)
    other = copy.deepcopy(model)
    run = latent_state(other)
    assert run.model is other
    assert run is not latent_state(model)
    assert_same_step(step(other), before)
    assert other.latent.step == model.latent.step
    with torch.no_grad():
        for weight in (*other.latent.parameters(), *run.backbone.layers[0].parameters()):
            weight.add_(1)
    assert_same_step(step(model), before)
    model.zero_grad()


@every
def test_packed_segments_are_told_apart_or_found_out(name):
    packed = batch_of(documents((9, 12)), "packed")
    starts = (packed["position_ids"] == 0).cumsum(1) - 1
    model = case(name).model
    mixing = name in UNMASKED or TINY[name].has_state
    assert mixes_segments(model, packed | {"latent": {"segments": starts}}) == mixing


@pytest.mark.parametrize("own", [None, ["past_key_values", "mems"]])
def test_removing_leaves_the_config_as_it_was(own):
    model = build("llama")
    if own is not None:
        model.config.keys_to_ignore_at_inference = own
    before, ignored = model.config.to_dict(), getattr(model.config, "keys_to_ignore_at_inference", None) or []
    get_latent_model(model, {"terms": POINTWISE})
    assert model.config.keys_to_ignore_at_inference == [*ignored, "latent_loss", "data_loss"]
    assert remove_latent(model).config.to_dict() == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with pytest.raises(ValueError, match="LlamaForCausalLM has no latent heads; call get_latent_model first"):
        remove_latent(model)
