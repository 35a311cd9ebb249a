"""A training that diverges stops at once, says where and what, and leaves its finite checkpoints alone."""

import json
import math
from pathlib import Path

import pytest
import torch
from attached_models import NEXT_STATE, attach, documents
from datasets import Dataset
from run_cli import FEW, TINY, latentlm
from tiny_trainers import trainer_of
from transformers import TrainerCallback

from latentlm.trainers.checkpoints import checkpoints, newest_whole, problem
from latentlm.trainers.latent_trainer import LatentTrainer
from latentlm.trainers.safe_training import DivergedError

SAVED = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 2, "max_steps": 6, "logging_steps": 100}


class Poison(TrainerCallback):
    """Makes something not finite at a step: the weights before it, or what the backward left."""

    def __init__(self, what, step, value=math.nan, times=1):
        self.what, self.steps, self.value = what, range(step, step + times), value

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if self.what == "weights" and state.global_step + 1 in self.steps:
            with torch.no_grad():
                model.model.layers[0].mlp.down_proj.weight.fill_(self.value)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if self.what == "update" and state.global_step in self.steps:
            with torch.no_grad():
                model.model.layers[0].mlp.down_proj.weight.fill_(self.value)


def trainer(folder, callbacks=(), **more):
    data = Dataset.from_list(documents((12, 5, 9, 7, 8, 6)))
    when = more.pop("when_not_finite", "stop")
    return trainer_of(
        LatentTrainer, attach(terms={"a": NEXT_STATE}), folder, arguments_more=SAVED | more, callbacks=callbacks,
        train_dataset=data, when_not_finite=when,
    )  # fmt: skip


def test_the_first_loss_that_is_not_finite_stops_the_training(tmp_path):
    lost = trainer(tmp_path, [Poison("weights", 4)])
    with pytest.raises(DivergedError, match=r"step 4: the loss is nan \(a nan, data nan\)") as told:
        lost.train()
    assert f"the last good checkpoint is {tmp_path / 'checkpoint-3'}" in str(told.value)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-3", "checkpoint-2"]
    assert all(problem(path) is None for path in checkpoints(tmp_path))
    row = lost.state.log_history[-1]
    assert row["step"] == 4
    assert math.isnan(row["loss"])


def test_infinite_gradients_stop_it_as_well(tmp_path):
    def explode(grad):
        return grad * math.inf

    lost = trainer(tmp_path)
    weight = lost.model.model.layers[0].mlp.up_proj.weight
    weight.register_hook(explode)
    with pytest.raises(DivergedError, match=r"step 1: the gradient is (nan|inf) .*there is no checkpoint yet"):
        lost.train()
    assert weight.isfinite().all()


def test_weights_that_are_lost_in_an_update_are_never_saved(tmp_path):
    lost = trainer(tmp_path, [Poison("update", 3)])
    with pytest.raises(DivergedError, match=r"step 3: after this step the weights are not finite \(model.layers.0"):
        lost.train()
    assert newest_whole(tmp_path)[0] == tmp_path / "checkpoint-2"
    with pytest.raises(DivergedError):
        lost.save_model(str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_such_steps_can_be_left_out_but_not_for_ever(tmp_path):
    bad = {2, 3}

    class Some(LatentTrainer):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            return loss * (math.nan if self.state.global_step + 1 in bad else 1.0)

    def start(folder):
        data = Dataset.from_list(documents((12, 5, 9, 7, 8, 6)))
        more = SAVED | {"max_steps": 20, "save_strategy": "no", "logging_steps": 1}
        return trainer_of(
            Some, attach(terms={"a": NEXT_STATE}), folder, arguments_more=more, train_dataset=data,
            when_not_finite="skip",
        )  # fmt: skip

    kept = start(tmp_path)
    kept.train()
    rows = [row for row in kept.state.log_history if "loss" in row]
    assert [row["step"] for row in rows if not math.isfinite(row["loss"])] == [2, 3]  # the log says what was there
    assert all(weight.isfinite().all() for weight in kept.model.parameters())
    bad |= set(range(5, 30))
    with pytest.raises(DivergedError, match="step 14: the loss is nan"):
        start(tmp_path).train()


def test_a_diverged_run_ends_in_one_line_and_not_with_exit_code_0(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        FEW,
        TINY,
        "training.output_dir=run",
        "training.max_steps=8",
        "training.save_steps=1",
        "training.use_cpu=true",
        "training.logging_steps=4",
    ]
    told = latentlm("train", "smoke_text", *words, "training.learning_rate=1e8", "training.max_grad_norm=1e9")
    assert told.code == 1
    last = told.err.splitlines()[-1]
    assert last.startswith("latentlm: step 2: the loss is ")
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert not math.isfinite(rows[-1]["loss"])
    assert not Path("run/model").exists()
    assert latentlm("export", "run", "out").code == 2
    words[2] = "training.output_dir=kept"
    told = latentlm("train", "smoke_text", *words, "training.learning_rate=1e8", "training.when_not_finite=skip")
    assert told.code == 0  # what the first step left is finite, and the seven others were left out, as was wanted
    told = latentlm("train", "smoke_text", *words, "training.when_not_finite=on")
    assert told.code == 2
    assert "training.when_not_finite" in told.err
