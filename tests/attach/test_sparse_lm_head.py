"""The output head that skips positions without a label: same loss, same gradients, fewer rows."""

import pytest
import torch
from attached_models import batch_of, documents
from tiny_models import build

from latentlm import get_latent_model

TERMS = {
    "next_state": {
        "kind": "predict",
        "source": {"depth": "1/2"},
        "target": {"kind": "online", "tap": {"depth": "1/2", "at": {"kind": "next"}}},
        "loss": {"kind": "cosine"},
    }
}


def rows_read(model, batch):
    """Loss, logits, gradients of a step, and how many rows the head was given."""
    seen = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[:-1].numel()))
    output = model(**batch)
    handle.remove()
    output.loss.backward()
    # heads are drawn after the model, so those of two models differ in nothing
    return output, {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}, seen


@pytest.mark.parametrize("name", ["llama", "gemma2", "phi", "bert"])
def test_loss_and_gradients_are_those_of_all_logits(name):
    batch = batch_of(documents(), "right")
    own = {**batch, "latent": {"segments": torch.where(batch["attention_mask"].bool(), 0, -1)}}
    found = []
    for each in (own, batch):
        torch.manual_seed(0)
        found.append(rows_read(get_latent_model(build(name), {"terms": TERMS, "monitor_every": 0}).train(), each))
    (sparse, gradients, few), (plain, expected, all_rows) = found
    wanted = batch["labels"][:, 1:] != -100
    assert few == [int(wanted.sum())]
    assert all_rows == [batch["labels"].numel()]
    assert sparse.loss.item() == pytest.approx(plain.loss.item(), rel=1e-6)
    torch.testing.assert_close(sparse.logits[:, :-1][wanted], plain.logits[:, :-1][wanted])
    assert gradients.keys() == expected.keys()
    for weight, gradient in expected.items():
        torch.testing.assert_close(gradients[weight], gradient, rtol=1e-4, atol=1e-6, msg=weight)


def test_nothing_outlives_the_forward():
    batch = batch_of(documents(), "right")
    segments = {"segments": torch.where(batch["attention_mask"].bool(), 0, -1)}
    model = get_latent_model(build("llama"), {"terms": TERMS, "monitor_every": 0}).train()
    model(**batch, latent=segments)
    assert not model.get_output_embeddings()._forward_hooks
    assert not model.get_output_embeddings()._forward_pre_hooks
    with torch.no_grad():  # no terms, so all logits
        assert model(**batch, latent=segments).logits[:, 0].abs().sum() > 0


def test_rows_full_of_labels_are_left_alone():
    batch = batch_of([{"input_ids": [*range(3, 15)], "labels": [*range(3, 15)]}] * 2, "right")
    model = get_latent_model(build("llama"), {"terms": TERMS, "monitor_every": 0}).train()
    *_, seen = rows_read(model, {**batch, "latent": {"segments": torch.zeros_like(batch["input_ids"])}})
    assert seen == [24]  # only the last position of each row predicts nothing
