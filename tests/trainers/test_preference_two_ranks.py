"""DPO and GRPO on two real ranks: their terms are those of one process that sees all rows, in value and in a step."""

import pytest
import torch
from attached_models import POINTWISE, attach
from gloo_pool import launched
from preference_models import dpo, forward, grpo, sampled
from tiny_models import build

from latentlm import get_latent_model
from latentlm.distributed.collectives import rank, world_size


def told(trainer):
    line = trainer.state.log_history[0]
    return {key: line[key] for key in line if key == "loss" or key.endswith(("/value", "/weighted"))}


def weights(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def compared(folder):
    with launched():
        trainer = dpo(attach(seed=rank()), folder, per_device_train_batch_size=4 // world_size())
        trainer.train()
        return told(trainer), weights(trainer.model)


def test_dpo_on_two_ranks_is_one_process(pool, tmp_path):
    line, after = compared(tmp_path)
    for rank_line, rank_after in pool.run(compared, str(tmp_path)):
        assert rank_line == pytest.approx(line, rel=1e-5)
        torch.testing.assert_close(rank_after, after, rtol=1e-4, atol=2e-6)


def of_terms_alone():
    """A model whose step is the terms' alone, whatever the rewards are."""
    return get_latent_model(build("llama", 0), {"lm_weight": 0.0, "terms": POINTWISE, "monitor_every": 0}).train()


def rewarded(folder):
    with launched():
        trainer = grpo(of_terms_alone(), folder, per_device_train_batch_size=4)
        trainer.train()
        return told(trainer), sampled(trainer), weights(trainer.model)


def test_grpo_on_two_ranks_is_one_step_on_what_both_have_sampled(pool, tmp_path):
    (line, (rows, labels), after), (other_line, (more, others), same) = pool.run(rewarded, str(tmp_path))
    assert line == other_line
    assert len(rows) == len(more) == 4
    assert rows != more
    assert all(torch.equal(weight, same[name]) for name, weight in after.items())
    model = of_terms_alone()
    output = forward(model, rows + more, labels + others)
    assert line["loss"] == pytest.approx(output.loss.item(), rel=1e-5)
    output.loss.backward()
    torch.optim.SGD(model.parameters(), lr=1e-2).step()
    torch.testing.assert_close(after, weights(model), rtol=1e-4, atol=2e-6)
