"""Patches of a model's loss, as Liger makes them, keep their own loss and get the terms beside it."""

import pytest
import torch
import torch.nn.functional as F
from attached_models import attach, batch_of, documents, tapped_gradients
from transformers.modeling_outputs import CausalLMOutputWithPast


def doubled(self, input_ids=None, attention_mask=None, labels=None, **kwargs):
    """A forward that, like Liger's, runs decoder and head by itself; twice the loss tells it from the plain one."""
    states = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
    scores = self.lm_head(states[:, :-1]).flatten(0, 1)
    return CausalLMOutputWithPast(loss=2 * F.cross_entropy(scores, labels[:, 1:].flatten()))


@pytest.mark.parametrize("when", ["new", "in use"])
@pytest.mark.parametrize("how", ["class", "instance", "loss"])
def test_a_patched_loss_stays_and_the_terms_are_added(how, when, monkeypatch):
    plain = attach()
    expected = plain(**batch_of(documents()))
    model = attach()
    if when == "in use":
        model(**batch_of(documents()))
    if how == "class":
        monkeypatch.setattr(type(model), "forward", doubled)
    elif how == "instance":
        model.forward = doubled.__get__(model)
    else:
        own = model.loss_function
        model.loss_function = lambda *args, **kwargs: 2 * own(*args, **kwargs)
    out = model(**batch_of(documents()))
    assert out.data_loss.item() == pytest.approx(2 * expected.data_loss.item(), rel=1e-6)
    assert out.latent_loss.item() == pytest.approx(expected.latent_loss.item(), rel=1e-6)
    assert out.loss.item() == pytest.approx(out.data_loss.item() + out.latent_loss.item(), rel=1e-6)
    out.loss.backward()
    assert all(torch.isfinite(grad).all() and grad.abs().sum() > 0 for grad in tapped_gradients(model))
