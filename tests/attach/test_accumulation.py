"""Gradient accumulation is one big batch, whatever the terms count; terms that couple samples say that it is not."""

import warnings
from functools import lru_cache

import pytest
import torch
from attached_models import LAST_TO_LAST, NEXT_STATE, NORMAL, SLOW, attach, batch_of, documents
from datasets import Dataset
from tiny_trainers import in_order, trainer_of

from latentlm.attach.state import latent_state
from latentlm.config.schema import parse
from latentlm.data import Collator
from latentlm.objective.objective import Objective
from latentlm.trainers.latent_trainer import LatentTrainer
from latentlm.trainers.sft import LatentSFTTrainer

SETS = ("source_last", "target_ids")
NAMES_OTHER = {
    "kind": "predict",
    "source": {"depth": "1/2", "at": "source_last"},
    "target": {"kind": "token_embeddings", "ids": "target_ids"},
    "loss": {"kind": "cosine"},
}
AT_SPANS = {
    "kind": "predict",
    "source": {"depth": "3/4", "at": "source_last"},
    "target": {"kind": "online", "tap": {"depth": "1/4", "at": "source_last"}},
    "loss": {"kind": "mse"},
}
EARLY_EXIT = {
    "kind": "predict",
    "source": {"depth": "1/2"},
    "target": {"kind": "tokens"},
    "loss": {"kind": "next_token"},
    "decode_with": "norm_and_lm_head",
}
TERMS = {
    "predict_target_from_source": NAMES_OTHER,
    "spans": AT_SPANS,
    "exit": EARLY_EXIT,
    "next_state": NEXT_STATE,
    "slow": SLOW,
}


def examples():
    """24 ragged documents with no, one or two pairs of spans, some of them to be read alone."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(4, 14, (24,), generator=generator).tolist()
    found = documents(tuple(lengths))
    for number, example in enumerate(found):
        spans = [
            {"source_last": 2, "target_ids": example["input_ids"][-2:], "isolated_source": []},
            {"source_last": 2, "target_ids": example["input_ids"][:2], "isolated_source": example["input_ids"][-3:]},
        ]
        example["span_pairs"] = spans[: number % 3]
    return Dataset.from_list(found[1:] + found[:1])  # the first one decides what a column holds


def train(cls, folder, size, accumulation, packing):
    model = attach(terms=TERMS)
    more = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 3}
    options = {"train_dataset": examples(), "data_collator": Collator(0, SETS, packing)}
    trainer = trainer_of(cls, model, folder, arguments_more=more, **options)
    trainer.train()
    assert latent_state(model).steps.counts is None
    model.state_dict()  # the third step is counted by what comes next, a forward or saving
    assert model.latent.step == 3
    return trainer.state.log_history[:3], list(model.parameters())


@lru_cache
def at_once(folder, packing):
    return train(LatentTrainer, folder, 8, 1, packing)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("accumulation")


@pytest.mark.parametrize(
    ("cls", "packing", "size", "accumulation"),
    [
        (LatentTrainer, "packed", 1, 8),
        (LatentSFTTrainer, "none", 4, 2),
        *(
            pytest.param(*way, marks=pytest.mark.slow)
            for way in (
                (LatentTrainer, "packed", 4, 2),
                (LatentTrainer, "none", 1, 8),
                (LatentTrainer, "none", 4, 2),
                (LatentSFTTrainer, "packed", 1, 8),
                (LatentSFTTrainer, "packed", 4, 2),
                (LatentSFTTrainer, "none", 1, 8),
            )
        ),
    ],
)
def test_accumulating_is_one_batch(folder, cls, packing, size, accumulation):
    logs, weights = at_once(folder, packing)
    found, others = train(cls, folder, size, accumulation, packing)
    names = [name for name in logs[0] if name == "loss" or "/" in name]
    assert len(names) == 2 + 2 * len(TERMS)
    for one, other in zip(logs, found, strict=True):
        assert {name: other[name] for name in names} == pytest.approx({name: one[name] for name in names}, rel=2e-5)
    torch.testing.assert_close(others, weights, rtol=1e-4, atol=1e-6)


def test_heads_with_batch_norm_couple_samples_too():
    term = {**LAST_TO_LAST, "loss": {"kind": "mse"}, "source": {**LAST_TO_LAST["source"], "head": "p"}}
    term["target"] = {**LAST_TO_LAST["target"], "tap": {**LAST_TO_LAST["target"]["tap"], "head": "p"}}
    for norms, coupled in [({"norm": "batch"}, ["heads.p"]), ({"final_norm": "batch"}, ["heads.p"]), ({}, [])]:
        heads = {"p": {"kind": "projector", "dim": 8, **norms}}
        objective = parse(Objective, {"terms": {"last": term}, "heads": heads}, "objective")
        assert objective.uses_batch_statistics == coupled
    assert parse(Objective, {"terms": {"last": LAST_TO_LAST}}, "objective").uses_batch_statistics == ["last"]


@pytest.mark.parametrize("cls", [LatentTrainer, LatentSFTTrainer])
def test_terms_that_couple_samples_say_so_once(cls, tmp_path):
    more = {"arguments_more": {"gradient_accumulation_steps": 2}}
    model = attach(terms={"last": LAST_TO_LAST, "normal": NORMAL, "next_state": NEXT_STATE})
    line = "gradient_accumulation_steps=2: samples of last, normal meet only those of their own micro-batch"
    with pytest.warns(UserWarning, match=line) as caught:
        trainer_of(cls, model, tmp_path, **more).train()
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    with warnings.catch_warnings(action="error"):
        trainer_of(cls, model, tmp_path)
        trainer_of(cls, attach(terms={"next_state": NEXT_STATE, "slow": SLOW}), tmp_path, **more)


def test_a_loop_of_its_own_is_told_once_and_only_if_it_accumulates():
    model, data = attach(terms={"last": LAST_TO_LAST, "next_state": NEXT_STATE}), documents()
    optimizer = torch.optim.AdamW(model.parameters())
    line = "a second backward before an optimizer step: samples of last meet only those of their own micro-batch"

    def steps(backwards, model=model):
        for _ in range(3):
            for start in range(backwards):
                model(**batch_of(data[2 * start : 2 * start + 2])).loss.backward()
            optimizer.step()
            model.state_dict()  # counts the step before the next forward can

    steps(1)
    with pytest.warns(UserWarning, match=line) as caught:
        steps(2)
    assert len(caught) == 1
    steps(2, attach(terms={"next_state": NEXT_STATE, "slow": SLOW}))  # nothing meets, so nothing is said


@in_order
@pytest.mark.filterwarnings("ignore:gradient_accumulation_steps=2")
def test_coupled_terms_are_averaged_over_micro_batches(tmp_path):
    model, data = attach(terms={"normal": NORMAL}), documents()
    halves = [attach(terms={"normal": NORMAL})(**batch_of(data[i : i + 2])).latent_loss.item() for i in (0, 2)]
    more = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "train_sampling_strategy": "sequential"}
    trainer = trainer_of(LatentTrainer, model, tmp_path, arguments_more=more)
    trainer.train()
    logs = trainer.state.log_history[0]
    assert logs["normal/value"] == pytest.approx(sum(halves) / 2, rel=1e-5)
    assert logs["loss"] == pytest.approx(logs["data/value"] + logs["normal/value"], rel=1e-5)
