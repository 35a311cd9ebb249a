"""Heads beside adapters: who is trained, what the adapter file holds, and what merging leaves."""

import copy

import pytest
import torch
from attached_models import NEXT_STATE, SLOW, attach, batch_of, documents, lora
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tiny_models import ids
from torch import nn

import latentlm
from latentlm import latent_lora_config, remove_latent
from latentlm.attach.leak_checks import mixes_segments
from latentlm.attach.state import latent_state

FROZEN = SLOW | {"target": {"kind": "frozen", "tap": {"depth": "3/4", "at": {"kind": "next"}}}}
EXACT = {"rtol": 0, "atol": 0}


def trained(model, steps=2):
    """The model after some steps of full training of whatever it trains."""
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch_of(documents())).loss.backward()
        optimizer.step()
    return model


def loss_of(model):
    output = model.train()(**batch_of(documents()))
    return {"data": output.data_loss.item(), "latent": output.latent_loss.item()}


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=ids()).logits


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_adapters_and_heads_are_trained_and_nothing_else(name):
    fan = {"fan_in_fan_out": name == "gpt2"}
    before = {n: w.detach().clone() for n, w in lora(attach(name), **fan).named_parameters()}
    model = trained(lora(attach(name), **fan))
    weights = dict(model.named_parameters())
    moved = {n for n, w in weights.items() if not torch.equal(w, before[n])}
    adapters = {n for n in weights if "lora_" in n}
    heads = {n for n in weights if "latent.modules_to_save.default" in n}
    assert adapters
    assert len(heads) == len(list(attach(name).latent.parameters()))
    assert moved == adapters | heads == {n for n, w in weights.items() if w.requires_grad}
    assert not any("latent" in n for n in adapters)


def test_evaluation_is_that_of_the_adapted_model():
    plain, model = lora(remove_latent(attach()), heads=False), lora(attach())
    torch.testing.assert_close(logits(model), logits(plain), **EXACT)
    options = {"max_new_tokens": 4, "do_sample": False}
    torch.testing.assert_close(model.generate(ids()[:1], **options), plain.generate(ids()[:1], **options), **EXACT)
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), logits(attach()), **EXACT)


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"),
        LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", exclude_modules=r"(.*\.)?latent\..*"),
        LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"),
    ],
)
def test_heads_that_would_not_be_trained_are_refused(config):
    model = get_peft_model(attach(), config)
    with pytest.raises(ValueError, match=r"latent heads: .* use latentlm.latent_lora_config") as caught:
        model(**batch_of(documents()))
    assert "\n" not in str(caught.value)
    logits(model)


def test_a_name_that_peft_would_take_for_the_container_is_refused():
    with pytest.raises(ValueError, match="'next_latent' must not end in 'latent'"):
        attach(terms={"next_latent": NEXT_STATE})


def test_adapter_file_holds_the_heads(tmp_path):
    model = trained(lora(attach()))
    expected = loss_of(model)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert {n.removeprefix("base_model.model.latent.") for n in saved if "latent" in n} == set(
        model.base_model.model.latent.modules_to_save["default"].state_dict()
    )
    again = PeftModel.from_pretrained(attach(), tmp_path, is_trainable=True)
    assert latent_state(again).model.latent.step == latent_state(model).model.latent.step == 2
    assert loss_of(again)["data"] == expected["data"]
    plain = remove_latent(attach())
    with pytest.warns(UserWarning, match="latent"):  # peft names the heads it finds no place for
        bare = PeftModel.from_pretrained(plain, tmp_path)
    torch.testing.assert_close(logits(bare), logits(model), **EXACT)


def test_merging_keeps_the_trained_heads(tmp_path):
    model = trained(lora(attach(terms={"next_state": NEXT_STATE})))
    expected, before = loss_of(model), logits(model)
    merged = model.merge_and_unload()
    assert latent_state(merged).model is merged
    assert loss_of(merged) == pytest.approx(expected, rel=1e-5)
    merged.save_pretrained(tmp_path)
    again = latentlm.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(again), before, rtol=1e-5, atol=1e-6)
    assert again.state_dict().keys() == merged.state_dict().keys()


def states(model, terms):
    """The states that the frozen teacher reads in one training forward."""
    found = []
    handle = latent_state(model).model.latent.register_forward_pre_hook(
        lambda _m, args: found.append(args[0].teacher_views)
    )
    model.train()(**batch_of(documents()))
    handle.remove()
    return found[0]["frozen"].states[3]


def test_frozen_teacher_is_the_network_without_adapters():
    terms = {"frozen": FROZEN}
    first = states(attach(terms=terms), terms)
    model = trained(lora(attach(terms=terms)))
    torch.testing.assert_close(states(model, terms), first, **EXACT)
    latent = latent_state(model).model.latent
    assert not list(latent.teachers["frozen"].buffers())
    whole = trained(attach(terms=terms))
    torch.testing.assert_close(states(whole, terms), first, **EXACT)
    assert list(whole.latent.teachers["frozen"].buffers())


def test_frozen_teacher_takes_no_module_that_peft_trains_in_full():
    terms = {"frozen": FROZEN}
    config = latent_lora_config(target_modules=["q_proj"], modules_to_save=["latent", "embed_tokens", "down_proj"])
    model = get_peft_model(attach(terms=terms, tie_word_embeddings=False), config)
    first = states(model, terms)
    torch.testing.assert_close(states(trained(model), terms), first, **EXACT)


def test_trained_final_norm_is_the_one_that_taps_use():
    term = NEXT_STATE | {"source": {"depth": "1/2", "norm": "final"}}
    model = get_peft_model(
        attach(terms={"normed": term}),
        latent_lora_config(target_modules=["q_proj"], modules_to_save=["latent", "model.norm"]),
    )
    with torch.no_grad():
        model.base_model.model.model.norm.modules_to_save["default"].weight.mul_(2)
    found = []
    latent_state(model).model.latent.register_forward_pre_hook(lambda _m, args: found.append(args[0].view))
    model.train()(**batch_of(documents()))
    state = torch.randn(1, 32)
    torch.testing.assert_close(found[0].norm(state), model.base_model.model.model.norm(state), **EXACT)


def test_packed_segments_are_apart_under_peft():
    packed = batch_of(documents((9, 12)), "packed")
    packed["latent"] = {"segments": (packed["position_ids"] == 0).cumsum(1) - 1}
    model, caches = lora(attach()), []
    decoder = latent_state(model).backbone.decoder
    decoder.register_forward_pre_hook(lambda _m, _a, kwargs: caches.append(kwargs["use_cache"]), with_kwargs=True)
    assert not mixes_segments(model, packed)
    model.train()(**packed)
    assert caches == [False] * len(caches)
    assert mixes_segments(lora_of("mamba"), packed)


def lora_of(name) -> nn.Module:
    return get_peft_model(attach(name), latent_lora_config(target_modules=["x_proj", "in_proj"]))


def test_copy_of_an_adapted_model_is_independent():
    model = trained(lora(attach()))
    expected = loss_of(model)
    other = copy.deepcopy(model)
    assert loss_of(other) == expected
    trained(other)
    other.state_dict()  # counts the last step
    assert latent_state(other).model.latent.step == 4
    assert latent_state(model).model.latent.step == 2
    assert loss_of(model) != loss_of(other)
