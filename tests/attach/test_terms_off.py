"""Terms that are off: not run, nothing read for them, no rank waits for them, and a resumed run agrees."""

from itertools import pairwise

import pytest
import torch
from attached_models import LAST_TO_LAST, NEXT_STATE, NORMAL, SLOW, attach, batch_of, documents
from datasets import Dataset
from gloo_pool import launched
from tiny_models import build
from tiny_trainers import trainer_of
from torch.nn.parallel import DistributedDataParallel

from latentlm.attach.forward_io import ForwardInputs
from latentlm.attach.state import latent_state
from latentlm.distributed.collectives import all_reduce_sum, rank, world_size
from latentlm.trainers.latent_trainer import LatentTrainer

SHALLOW = SLOW | {"target": SLOW["target"] | {"tap": {"depth": "1/4", "at": {"kind": "next"}}}}
EARLY, LATE = {"stop": 2}, {"start": 3}
DATA = documents((12, 5, 9, 7, 8, 6, 10, 4))


def scheduled(**weights) -> dict:
    """Terms by name, each with its weight."""
    terms = {"next_state": NEXT_STATE, "slow": SLOW, "shallow": SHALLOW, "last": LAST_TO_LAST, "normal": NORMAL}
    return {name: terms[name] | {"weight": weight} for name, weight in weights.items()}


def loop(model, num_steps, each=lambda output: None):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for _ in range(num_steps):
        output = model(**batch_of(DATA))
        output.loss.backward()
        each(output)
        optimizer.step()
        optimizer.zero_grad()


def test_a_term_that_is_off_runs_neither_predictor_nor_teacher():
    model = attach(terms=scheduled(slow=EARLY, shallow={"stop": 4}, next_state=LATE))
    calls = {name: 0 for name in ("slow", "shallow", "next_state", "block 1", "block 2", "block 3", "block 4")}
    heads, layers = model.latent.terms, latent_state(model).backbone.layers
    watched = {name: heads[name].predictor for name in ("slow", "shallow", "next_state")}
    for name, module in (watched | {f"block {n}": layer for n, layer in enumerate(layers, 1)}).items():
        module.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    seen = []
    loop(model, 6, lambda output: seen.append((dict(calls), calls.update(dict.fromkeys(calls, 0)))[0]))
    names = ("slow", "shallow", "next_state")
    assert [[each[name] for name in names] for each in seen] == [[1, 1, 0]] * 2 + [[0, 1, 0], [0, 1, 1]] + [
        [0, 0, 1]
    ] * 2
    # the teacher stops at its deepest target that is on, and is not run at all when there is none
    blocks = [[each[f"block {n}"] for n in range(1, 5)] for each in seen]
    assert blocks == [[2, 2, 2, 1]] * 2 + [[2, 1, 1, 1]] * 2 + [[1, 1, 1, 1]] * 2


def test_what_is_off_leaves_no_trace_in_loss_and_gradient():
    model, plain = attach(terms=scheduled(next_state=EARLY, slow=EARLY)), build("llama").train()
    model.latent.step = 2
    found, alone = model(**batch_of(DATA)), plain(**batch_of(DATA))
    assert torch.equal(found.loss, alone.loss)
    found.loss.backward()
    alone.loss.backward()
    for name, weight in plain.named_parameters():
        assert torch.equal(model.get_parameter(name).grad, weight.grad), name
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.latent.terms.parameters())


@pytest.mark.parametrize("name", ["next_state", "slow", "shallow", "last", "normal"])
@pytest.mark.parametrize("when", [EARLY, LATE], ids=["stop", "start"])
def test_the_monitor_looks_at_the_terms_that_are_on(name, when):
    model = attach(terms=scheduled(**{name: when}), monitor=1)
    state, seen = latent_state(model), []
    loop(model, 5, lambda _: seen.append({key for key in state.monitoring.probe.found if key.endswith("grad_ratio")}))
    looked = [f"monitor/{name}/grad_ratio" in each for each in seen]
    assert looked == ([True] * 5 if when is EARLY else [False] * 3 + [True] * 2)  # the last reading stays


def test_a_teacher_moves_until_its_last_term_is_gone():
    model = attach(terms=scheduled(slow=EARLY, next_state=1.0))
    copies = []
    loop(model, 5, lambda _: copies.append([copy.clone() for copy in model.latent.teachers["ema"].buffers()]))
    moved = [not all(map(torch.equal, *pair)) for pair in pairwise(copies)]
    assert moved == [True, False, False, False]


def ranks(num_steps, find_unused):
    terms = scheduled(next_state=EARLY, slow={"start": 1, "stop": 3}, last=LATE, normal=EARLY)
    model = attach(terms=terms)
    wrapped = DistributedDataParallel(model, find_unused_parameters=find_unused) if world_size() > 1 else model
    share = len(DATA) // world_size()
    batch, run = batch_of(DATA[rank() * share : (rank() + 1) * share]), latent_state(model)
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=1e-2), []
    for _ in range(num_steps):
        counts = model.latent.terms.counts(run.view({}, ForwardInputs.of(batch)), run.running())
        run.steps.counts = {name: all_reduce_sum(count.float()) for name, count in counts.items()}
        labels = all_reduce_sum((batch["labels"][:, 1:] != -100).sum())
        output = wrapped(**batch, num_items_in_batch=labels)
        (output.loss * world_size()).backward()
        losses.append(all_reduce_sum(output.loss.detach()).item())
        optimizer.step()
        optimizer.zero_grad()
    return losses, {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("find_unused", [False, True])
def test_no_rank_waits_for_a_term_that_is_off(pool, find_unused):
    losses, weights = ranks(5, find_unused)
    for found, own in pool.run(ranks, 5, find_unused):
        torch.testing.assert_close(found, losses, rtol=1e-5, atol=0)
        torch.testing.assert_close(own, weights, rtol=1e-4, atol=2e-6)


SHARES = scheduled(next_state={"stop": "40%"}, slow={"stop": 0.5}, shallow={"start": "1/3", "decay": 2})


def trained(folder, resumed=False, **more):
    with launched() if world_size() > 1 else torch.enable_grad():
        more = {"max_steps": 6, "save_strategy": "steps", "save_steps": 4, "optim": "adamw_torch", **more}
        arguments = {"per_device_train_batch_size": 2, "learning_rate": 1e-2, "logging_steps": 1, **more}
        model = attach(terms=SHARES, monitor=2)
        data = Dataset.from_list(DATA)
        trainer = trainer_of(LatentTrainer, model, folder, arguments_more=arguments, train_dataset=data)
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-4") if resumed else None)
    return trainer


def test_shares_of_training_are_logged_and_resumed(tmp_path):
    straight = trained(tmp_path / "run")
    lines = [line for line in straight.state.log_history if "loss" in line]
    on = {name: [index for index, line in enumerate(lines) if f"{name}/value" in line] for name in SHARES}
    assert on == {"next_state": [0, 1, 2], "slow": [0, 1, 2], "shallow": [2, 3, 4, 5]}
    for name, steps in on.items():
        weighted = [line[f"{name}/weighted"] for line in lines]
        assert [index for index, value in enumerate(weighted) if value] == steps
    assert lines[-1]["shallow/weighted"] == pytest.approx(0.5 * lines[-1]["shallow/value"])
    looks = [[name for name in SHARES if f"monitor/{name}/verdict" in line] for line in lines]
    assert looks[0] == ["next_state", "slow"]
    assert looks[4] == ["shallow"]
    resumed = trained(tmp_path / "run", resumed=True)
    again = [line for line in resumed.state.log_history if "loss" in line]
    assert [dict(line, num_tokens=None) for line in again] == [dict(line, num_tokens=None) for line in lines]
    for name, weight in straight.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], weight, rtol=0, atol=0, msg=name)


def test_what_cannot_be_known_or_trained_is_told():
    model = attach(terms=scheduled(slow={"stop": 0.5}))
    with pytest.raises(ValueError, match=r"objective\.terms\.slow\.weight: stop 0\.5 needs the number of steps in all"):
        model(**batch_of(DATA))
    latent_state(model).steps.total = 10
    assert model(**batch_of(DATA)).latent_loss > 0
    model = attach(terms=scheduled(normal=EARLY))
    object.__setattr__(latent_state(model).objective, "lm_weight", 0.0)
    model.latent.step = 2
    with pytest.raises(ValueError, match="lm_weight is 0 and no term is on at step 2, so nothing is trained"):
        model(**batch_of(DATA))
