"""Teachers of weights that FSDP2 has sharded: two real ranks against one process that sees all rows."""

import pytest
import torch
from attached_models import SLOW, batch_of, documents
from tiny_models import build
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from latentlm import get_latent_model
from latentlm.attach.forward_io import ForwardInputs
from latentlm.attach.state import latent_state
from latentlm.distributed.collectives import all_reduce_sum, rank, world_size

DATA = documents((12, 5, 9, 7, 8, 6, 10, 4))
HEADED = {
    "kind": "predict",
    "source": {"depth": 1, "norm": "final", "head": "h"},
    "target": {
        "kind": "ema",
        "tap": {"depth": 1, "norm": "final", "head": "h", "at": {"kind": "next"}},
        "momentum": 0.9,
    },
    "loss": {"kind": "smooth_l1"},
}
FROZEN = SLOW | {"target": {"kind": "frozen", "tap": {"depth": "3/4", "at": {"kind": "next"}}}}
OBJECTIVE = {
    "monitor_every": 2,
    "heads": {"h": {"kind": "projector", "dim": 8}},
    "terms": {"slow": SLOW, "headed": HEADED, "frozen": FROZEN},
}


def whole(value):
    return (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()


def shard(model, how):
    """By hand: each block and the rest, a rest that stays whole between forwards, or everything at once."""
    if how == "blocks":
        for block in model.model.layers:
            fully_shard(block)
    if how == "kept":
        for block in model.model.layers:
            fully_shard(block, reshard_after_forward=False)
        fully_shard([model.model.norm, model.model.embed_tokens], reshard_after_forward=False)
    return fully_shard(model)


def steps(hows, num_steps=3):
    """Losses, logs and weights of a plain loop for each way to shard; the gradient shows in the weights."""
    found = []
    share = len(DATA) // world_size()
    batch = batch_of(DATA[rank() * share :][:share])
    for how in hows:
        model = get_latent_model(build("llama"), OBJECTIVE).train()
        model = model if how is None else shard(model, how)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run, losses = latent_state(model), []
        for _ in range(num_steps):
            counts = model.latent.terms.counts(run.view({}, ForwardInputs.of(batch)))
            run.steps.counts = {name: all_reduce_sum(count.float()) for name, count in counts.items()}
            labels = all_reduce_sum((batch["labels"][:, 1:] != -100).sum())
            output = model(**batch, num_items_in_batch=labels)
            (output.loss * world_size()).backward()
            losses.append([all_reduce_sum(part.detach()).item() for part in (output.loss, output.latent_loss)])
            optimizer.step()
            optimizer.zero_grad()
        kept = model.state_dict()
        sharded = {
            isinstance(copy, DTensor) for teacher in model.latent.teachers.values() for copy in teacher.buffers()
        }
        lag = run.monitoring.metrics.latest["monitor/slow copy/lag"]
        found.append((losses, {name: whole(value) for name, value in kept.items()}, sharded, lag))
    return found


@pytest.mark.slow
def test_teachers_of_shards_equal_those_of_one_process(pool):
    hows = ("blocks", "kept", "all")
    ((losses, weights, _, lag),) = steps([None])
    assert any("teachers" in name for name in weights)
    for ranks in pool.run(steps, hows):
        for how, (found, copies, sharded, apart) in zip(hows, ranks, strict=True):
            torch.testing.assert_close(found, losses, rtol=1e-5, atol=0, msg=how)
            assert sharded == {True}
            assert apart == pytest.approx(lag, rel=1e-4)
            assert copies.keys() == weights.keys()
            for name, value in weights.items():
                torch.testing.assert_close(copies[name], value, rtol=1e-4, atol=2e-6, msg=f"{how}: {name}")
