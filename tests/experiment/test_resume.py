"""A run that goes on from a checkpoint ends where it would have ended: weights, heads, teachers and schedules."""

import pytest
import torch
from attached_models import LAST_TO_LAST, NEXT_STATE, NORMAL, SLOW, attach, batch_of, documents, lora
from datasets import Dataset
from tiny_trainers import trainer_of
from transformers import TrainerCallback

from latentlm.attach.state import latent_state
from latentlm.trainers.latent_trainer import LatentTrainer
from latentlm.trainers.sft import LatentSFTTrainer

RAMPED = NEXT_STATE | {"weight": {"value": 1.0, "start": 1, "ramp": 4, "grad_ratio": 0.5}}
FROZEN = SLOW | {"target": {"kind": "frozen", "tap": {"depth": "3/4", "at": {"kind": "next"}}}}
# sigreg draws its directions by the step
TERMS = {"ramped": RAMPED, "slow": SLOW, "frozen": FROZEN, "last": LAST_TO_LAST, "normal": NORMAL}


class KilledError(Exception):
    pass


class Kill(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        raise KilledError


def build(tuning):
    model = attach(terms=TERMS, monitor=3)
    return lora(model) if tuning == "lora" else model


def trainer_for(cls, model, folder, callbacks=(), eval_dataset=None, **more):
    more = {"max_steps": 5, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch"} | more
    more |= {"per_device_train_batch_size": 2, "learning_rate": 1e-2}
    data = Dataset.from_list(documents((12, 5, 9, 7, 8, 6)))
    return trainer_of(
        cls, model, folder, arguments_more=more, callbacks=callbacks, train_dataset=data, eval_dataset=eval_dataset
    )


def everything(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("cls", "tuning"),
    [
        (LatentTrainer, "full"),
        (LatentSFTTrainer, "lora"),
        pytest.param(LatentTrainer, "lora", marks=pytest.mark.slow),
        pytest.param(LatentSFTTrainer, "full", marks=pytest.mark.slow),
    ],
)
def test_resumed_run_equals_the_straight_one(cls, tuning, tmp_path):
    straight = trainer_for(cls, build(tuning), tmp_path / "straight")
    straight.train()
    with pytest.raises(KilledError):
        trainer_for(cls, build(tuning), tmp_path / "resumed", [Kill()]).train()
    resumed = trainer_for(cls, build(tuning), tmp_path / "resumed")
    if tuning == "full":
        resumed.model(**batch_of(documents()))  # a forward before that must not be remembered
    resumed.train(resume_from_checkpoint=True)
    lines = [[dict(line, num_tokens=None) for line in each.state.log_history[:5]] for each in (straight, resumed)]
    assert lines[0] == lines[1]
    looks = [line["step"] for line in lines[0] if "monitor/slow/rank" in line and "monitor/ramped/grad_ratio" in line]
    assert looks == [1, 4]
    one, other = everything(straight.model), everything(resumed.model)
    assert one.keys() == other.keys()
    assert any("teachers" in name for name in one)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=0, msg=name)
    assert latent_state(resumed.model).model.latent.step == 5


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_best_model_is_loaded_with_its_heads_and_step(tuning, tmp_path):
    terms = {"ramped": NEXT_STATE | {"weight": {"value": 1.0, "start": 1, "ramp": 4}}, "slow": SLOW}
    make = attach if tuning == "full" else lambda **more: lora(attach(**more))
    more = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "max_steps": 3, "load_best_model_at_end": True}
    more |= {"metric_for_best_model": "eval_loss", "greater_is_better": True}  # not the last one
    more |= {"lr_scheduler_type": "constant"}
    trainer = trainer_for(
        LatentTrainer, make(terms=terms), tmp_path, eval_dataset=Dataset.from_list(documents()), **more
    )
    trainer.train()
    best = int(trainer.state.best_model_checkpoint.rpartition("-")[2])
    assert best < 3
    model = trainer.model
    assert latent_state(model).model.latent.step == best
    first = trainer_for(
        LatentTrainer, make(terms=terms), tmp_path / "first", max_steps=best, lr_scheduler_type="constant"
    )
    first.train()
    first.model.state_dict()  # counts its last step
    batch = batch_of(documents())
    found, expected = model.train()(**batch), first.model.train()(**batch)
    assert latent_state(model).model.latent.step == best
    assert found.latent_loss == expected.latent_loss
    assert found.loss == expected.loss
