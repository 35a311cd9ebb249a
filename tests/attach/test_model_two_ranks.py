"""Two real ranks against one process that sees all rows: whole models, by hand and through the trainers."""

import inspect
from pathlib import Path

import pytest
import torch
from attached_models import LAST_TO_LAST, NEXT_STATE, NORMAL, SLOW, attach, batch_of, documents, lora
from datasets import Dataset
from gloo_pool import launched
from tiny_models import build
from torch.nn.parallel import DistributedDataParallel
from transformers.distributed import DistributedConfig

from latentlm.attach.forward_io import ForwardInputs
from latentlm.attach.state import latent_state
from latentlm.distributed.collectives import all_reduce_sum, rank, world_size

TERMS = {"next_state": NEXT_STATE, "slow": SLOW, "last": LAST_TO_LAST, "normal": NORMAL}
DATA = documents((12, 5, 9, 7, 8, 6, 10, 4))


def own(rows):
    """Rows of this rank: the first half or the second."""
    share = len(rows) // world_size()
    return rows[rank() * share : (rank() + 1) * share]


def steps(terms, num_steps=2):
    """Losses and weights of a plain loop, scaled the way a Hugging Face trainer does it."""
    model = attach(terms=terms)
    wrapped = DistributedDataParallel(model, find_unused_parameters=True) if world_size() > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    run, batch, losses = latent_state(wrapped), batch_of(own(DATA)), []
    for _ in range(num_steps):
        counts = model.latent.terms.counts(run.view({}, ForwardInputs.of(batch)))
        run.steps.counts = {name: all_reduce_sum(count.float()) for name, count in counts.items()}
        labels = all_reduce_sum((batch["labels"][:, 1:] != -100).sum())
        output = wrapped(**batch, num_items_in_batch=labels)
        (output.loss * world_size()).backward()
        losses.append([all_reduce_sum(part.detach()).item() for part in (output.loss, output.latent_loss)])
        optimizer.step()
        optimizer.zero_grad()
    return losses, {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same(ranks, one, rtol=1e-4):
    for losses, weights in ranks:
        torch.testing.assert_close(losses, one[0], rtol=1e-5, atol=0)
        assert weights.keys() == one[1].keys()
        for name, value in one[1].items():
            torch.testing.assert_close(weights[name], value, rtol=rtol, atol=2e-6, msg=name)
    for name, value in ranks[0][1].items():
        assert torch.equal(value, ranks[1][1][name]), name


@pytest.mark.parametrize("name", TERMS)
def test_data_parallel_equals_one_process(pool, name):
    terms = {name: TERMS[name]}
    assert_same(pool.run(steps, terms), steps(terms))


def run_of(model, how, folder, kind="off", **more):
    """Logs and trainer of three steps of four rows over all ranks."""
    from tiny_trainers import trainer_of

    from latentlm.trainers.latent_trainer import LatentTrainer
    from latentlm.trainers.sft import LatentSFTTrainer

    cls = {"trainer": LatentTrainer, "sft": LatentSFTTrainer}[how]
    size = 4 // world_size() // more.get("gradient_accumulation_steps", 1)
    more = {"max_steps": 3, "per_device_train_batch_size": size, **more}
    data = Dataset.from_list(DATA)
    trainer = trainer_of(cls, model, Path(folder), kind=kind, arguments_more=more, train_dataset=data)
    trainer.train()
    assert trainer.accelerator.num_processes == world_size()
    logs = [line for line in trainer.state.log_history if "loss" in line]
    return [[line[name] for name in sorted(line) if "/" in name or name == "loss"] for line in logs], trainer


def trained(how, tuning, accumulation, kind, names, folder):
    """Logs and weights of a trainer; as under torchrun where there are two ranks."""
    with launched():
        model = attach(terms={name: TERMS[name] for name in names}, seed=rank())  # rank 0's weights are everybody's
        model = lora(model) if tuning == "lora" else model
        logs, trainer = run_of(model, how, folder, kind, gradient_accumulation_steps=accumulation)
        return logs, {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


EVERY, FEW = tuple(TERMS), ("next_state", "slow")


@pytest.mark.parametrize(
    ("how", "tuning", "accumulation", "kind", "names"),
    [
        ("trainer", "full", 1, "off", EVERY),
        ("sft", "lora", 1, "not reentrant", EVERY),
        ("trainer", "lora", 2, "off", FEW),
        ("sft", "full", 2, "off", FEW),
        pytest.param("trainer", "lora", 1, "off", EVERY, marks=pytest.mark.slow),
        pytest.param("trainer", "full", 1, "not reentrant", EVERY, marks=pytest.mark.slow),
        pytest.param("trainer", "lora", 1, "not reentrant", EVERY, marks=pytest.mark.slow),
        pytest.param("trainer", "full", 2, "off", FEW, marks=pytest.mark.slow),
        pytest.param("sft", "full", 1, "off", EVERY, marks=pytest.mark.slow),
        pytest.param("sft", "lora", 1, "off", EVERY, marks=pytest.mark.slow),
        pytest.param("sft", "full", 1, "not reentrant", EVERY, marks=pytest.mark.slow),
        pytest.param("sft", "lora", 2, "off", FEW, marks=pytest.mark.slow),
    ],
)
def test_trainers_on_two_ranks_equal_one_process(pool, how, tuning, accumulation, kind, names, tmp_path):
    one = trained(how, tuning, 1, "off", names, tmp_path)
    assert_same(pool.run(trained, how, tuning, accumulation, kind, names, str(tmp_path)), one)


def averaged_apart(folder):
    with launched():
        logs, _ = run_of(
            attach(terms={"next_state": NEXT_STATE}), "trainer", folder, average_tokens_across_devices=False
        )
        return logs


def test_without_averaging_tokens_the_terms_keep_their_weight(pool, tmp_path):
    one, other = pool.run(averaged_apart, str(tmp_path))
    assert one == other
    names = ["data/value", "loss", "next_state/value", "next_state/weighted"]
    first = dict(zip(names, one[0], strict=True))
    # the ranks' means are nearly the mean over all, so this sees a factor and not the exact value
    assert first["loss"] == pytest.approx(first["data/value"] + first["next_state/value"], rel=1e-4)


def sharded(how, names, folder):
    """Native FSDP2: weights sharded at loading, heads replicated."""
    from transformers import AutoModelForCausalLM

    from latentlm import get_latent_model

    with launched():
        mesh = DistributedConfig(fsdp_size=2)
        model = AutoModelForCausalLM.from_pretrained(folder, distributed_config=mesh)
        terms = {name: TERMS[name] for name in names}
        get_latent_model(model, {"terms": terms, "monitor_every": 0}, seed=rank()).train()
        logs, trainer = run_of(model, how, folder, save_strategy="steps", save_steps=3, save_only_model=True)
        return logs, [weight.detach().clone() for weight in trainer.model.latent.parameters()]


@pytest.mark.parametrize("how", ["trainer", pytest.param("sft", marks=pytest.mark.slow)])
def test_sharded_weights_give_the_same_run(pool, how, tmp_path):
    import latentlm

    if "fsdp_size" not in inspect.signature(DistributedConfig).parameters:
        pytest.skip("this release of transformers shards no weights at loading")
    names = tuple(TERMS)
    build("llama").save_pretrained(tmp_path)
    logs, weights = trained(how, "full", 1, "off", names, tmp_path / "one")
    for found, heads in pool.run(sharded, how, names, str(tmp_path)):
        torch.testing.assert_close(found, logs, rtol=1e-5, atol=0)
        expected = [value for name, value in weights.items() if ".terms." in name]
        torch.testing.assert_close(heads, expected, rtol=1e-4, atol=2e-6)
    saved = latentlm.from_pretrained(tmp_path / "checkpoint-3").state_dict()
    assert saved.keys() == weights.keys()
    for name, value in weights.items():
        torch.testing.assert_close(saved[name], value, rtol=1e-4, atol=2e-6, msg=name)
