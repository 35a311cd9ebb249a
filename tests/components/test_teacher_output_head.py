"""A teacher's latents are decoded by the teacher's own output head: the loss is the KL of the two networks' logits."""

import copy

import pytest
import torch
from peft import get_peft_model
from tiny_models import ids
from toy_view import llama

import latentlm
from latentlm import latent_lora_config
from latentlm.attach.state import latent_state

TERM = """
terms:
  keep:
    kind: predict
    source: {depth: 1, norm: final}
    target: {kind: %s, tap: {depth: 1, norm: final}, normalize: none%s}
    predictor: identity
    decode_with: lm_head
    loss: {kind: kl}
"""
BATCH = {"input_ids": ids(2, 8), "labels": ids(2, 8)}
tied = pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
peft = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def logits(model):
    """Of the plain network, dropout and heads off."""
    training = model.training
    with torch.no_grad():
        found = model.eval()(input_ids=BATCH["input_ids"]).logits
    model.train(training)
    return found


def kl(wanted, found):
    wanted, found = wanted.double().log_softmax(-1), found.double().log_softmax(-1)
    return (wanted.exp() * (wanted - found)).sum(-1).mean()


def step(model):
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=0.03)
    model(**BATCH).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def term(model):
    return float(model(**BATCH).latent_loss.detach())


@tied
def test_the_loss_is_the_kl_to_the_network_as_it_was(tie):
    model = llama(TERM % ("frozen", ""), tie_word_embeddings=tie)
    before = logits(model)
    assert term(model) == pytest.approx(0, abs=1e-6)
    step(model)
    after = logits(model)
    assert kl(before, after) > 0.01
    assert term(model) == pytest.approx(float(kl(before, after)), rel=1e-4)


@tied
@peft
@pytest.mark.parametrize("modules", [["q_proj"], ["q_proj", "lm_head"]], ids=["blocks", "output head too"])
def test_with_adapters_nothing_is_copied(tie, modules):
    if tie and "lm_head" in modules:
        pytest.skip("peft does not adapt an output head that is tied")
    model = llama(TERM % ("frozen", ""), tie_word_embeddings=tie)
    before = logits(model)
    model = get_peft_model(model, latent_lora_config(r=4, target_modules=modules)).train()
    for _ in range(15):  # an adapter starts at nothing
        step(model)
    after = logits(model)
    assert kl(before, after) > 1e-4
    assert term(model) == pytest.approx(float(kl(before, after)), rel=1e-3)
    assert not list(latent_state(model).attachment.heads.teachers.buffers())


@tied
def test_another_checkpoint_brings_its_own_head(tie, tmp_path):
    other = llama("{}", seed=5, tie_word_embeddings=tie)
    plain = latentlm.remove_latent(copy.deepcopy(other))
    plain.save_pretrained(tmp_path)
    model = llama(TERM % ("frozen", f", checkpoint: {tmp_path}"), tie_word_embeddings=tie)
    assert term(model) == pytest.approx(float(kl(logits(plain), logits(model))), rel=1e-4)


@tied
def test_an_average_has_an_average_of_the_head(tie):
    model = llama(TERM % ("ema", ", momentum: 0.5"), tie_word_embeddings=tie)
    slow = copy.deepcopy(model)
    step(model)
    with torch.no_grad():
        for own, new in zip(slow.parameters(), model.parameters(), strict=True):
            own.lerp_(new, 0.5)
    assert term(model) == pytest.approx(float(kl(logits(slow), logits(model))), rel=1e-3)


def test_it_goes_on_after_a_restart(tmp_path):
    model = llama(TERM % ("frozen", ""), tie_word_embeddings=False)
    before = logits(model)
    step(model)
    model.save_pretrained(tmp_path)
    again = latentlm.from_pretrained(tmp_path).train()
    step(again)
    assert term(again) == pytest.approx(float(kl(before, logits(again))), rel=1e-4)


def test_the_head_has_no_gradient_from_it():
    model = llama("lm_weight: 0\n" + TERM % ("ema", ", momentum: 0.5"), tie_word_embeddings=False)
    step(model)
    model(**BATCH).loss.backward()
    assert model.lm_head.weight.grad is None or not model.lm_head.weight.grad.any()
    assert model.model.layers[0].mlp.up_proj.weight.grad.any()
