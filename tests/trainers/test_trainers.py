"""A plain loop, Trainer and TRL's SFTTrainer make the same step of the same batch, in every layout."""

from functools import lru_cache

import pytest
import torch
from accelerate import Accelerator
from attached_models import (
    LAST_TO_LAST,
    POINTWISE,
    attach,
    batch_of,
    checkpointed,
    documents,
    head_weights,
    lora,
    tapped_gradients,
)
from combinations import combinations
from datasets import Dataset
from tiny_trainers import Gradients, arguments, trainer_of, words
from transformers import Trainer
from trl import SFTConfig, SFTTrainer

from latentlm import remove_latent
from latentlm.attach.state import latent_state
from latentlm.trainers.latent_trainer import LatentTrainer
from latentlm.trainers.sft import LatentSFTTrainer

TERMS = POINTWISE | {"last": LAST_TO_LAST}


def model_of(tuning, **more):
    model = attach(terms=TERMS, **more)
    if tuning == "lora and more":  # weights that PEFT copies and trains in full beside the heads
        return lora(model, modules_to_save=["latent", "input_layernorm"])
    return lora(model) if tuning == "lora" else model


def loop(tuning, layout, kind):
    accelerator, model = Accelerator(cpu=True), checkpointed(model_of(tuning), kind)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=1e-2))
    output = model(**batch_of(documents(), layout))
    accelerator.backward(output.loss)
    gradients = tapped_gradients(model)
    optimizer.step()
    means = latent_state(model).monitoring.metrics.means(torch.device("cpu"), lambda sums: sums)
    return {"loss": output.loss.item(), **means}, gradients, head_weights(model)


def trained(cls, folder, tuning, layout, kind):
    model, gradients = model_of(tuning), Gradients()
    trainer = trainer_of(cls, model, folder, layout, kind, [gradients])
    trainer.train()
    checkpoints = {bool(getattr(m, "gradient_checkpointing", False)) for m in latent_state(model).backbone.layers}
    assert checkpoints == {kind != "off"}
    return trainer.state.log_history[0], gradients.found, head_weights(model)


@lru_cache
def reference(tuning):
    return loop(tuning, "right", "off")


WAYS = combinations(
    ["loop", "trainer", "sft"],
    ["full", "lora", "lora and more"],
    ["right", "left", "packed"],
    ["off", "not reentrant", "reentrant"],
)


@pytest.mark.parametrize(("how", "tuning", "layout", "kind"), WAYS)
def test_every_way_makes_the_same_step(how, tuning, layout, kind, tmp_path):
    logs, gradients, heads = reference(tuning)
    if how == "loop":
        found = loop(tuning, layout, kind)
    else:
        found = trained({"trainer": LatentTrainer, "sft": LatentSFTTrainer}[how], tmp_path, tuning, layout, kind)
    assert {key: found[0][key] for key in logs} == pytest.approx(logs, rel=2e-6)
    torch.testing.assert_close(found[1], gradients, rtol=1e-4, atol=2e-5)
    for before, after, other in zip(head_weights(model_of(tuning)), heads, found[2], strict=True):
        assert not torch.equal(before, after)
        torch.testing.assert_close(other, after, rtol=1e-5, atol=1e-6)


def test_stock_trainer_trains_the_terms(tmp_path):
    logs, gradients, _ = reference("full")
    model, found = model_of("full"), Gradients()
    trainer = trainer_of(Trainer, model, tmp_path, callbacks=[found])
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(logs["loss"], rel=1e-6)
    torch.testing.assert_close(found.found, gradients, rtol=1e-4, atol=2e-5)


def test_stock_sft_trainer_is_told_that_it_ignores_the_terms(tmp_path):
    trainer = trainer_of(SFTTrainer, model_of("full"), tmp_path)
    with pytest.raises(
        ValueError,
        match="reads its loss off a fused head, without them; use LatentSFTTrainer, LatentDPOTrainer or LatentGRPOTr",
    ) as caught:
        trainer.train()
    assert "\n" not in str(caught.value)


def test_a_loop_that_ignores_the_terms_is_told_after_a_step():
    model = model_of("full")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    batch = batch_of(documents())
    labels = batch.pop("labels")
    for take in (True, True, False):
        output = model(**batch)
        assert output.loss is None
        loss = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        (loss + output.latent_loss if take else loss).backward()
        optimizer.step()
    with torch.no_grad():
        model(**batch)
    with pytest.raises(ValueError, match="the last step was made without them") as caught:
        model(**batch)
    assert "\n" not in str(caught.value)


def test_stock_trainer_with_label_smoothing_is_told_after_a_step(tmp_path):
    more = {"label_smoothing_factor": 0.1, "max_steps": 2}
    with pytest.raises(ValueError, match="no label smoothing, no compute_loss_func"):
        trainer_of(Trainer, model_of("full"), tmp_path, arguments_more=more).train()


@pytest.mark.parametrize("cls", [LatentTrainer, LatentSFTTrainer])
@pytest.mark.parametrize("name", ["label_smoothing_factor", "compute_loss_func"])
@pytest.mark.filterwarnings("ignore:`(label_smoothing_factor|compute_loss_func)` is deprecated:FutureWarning")  # by trl
def test_what_takes_the_labels_away_is_refused_before_training(cls, name, tmp_path):
    more = {"arguments_more": {name: 0.1}} if name.startswith("label") else {name: lambda *a, **k: 0}
    with pytest.raises(ValueError, match=f"^{name}: takes the labels from the model; leave it out") as caught:
        trainer_of(cls, model_of("full"), tmp_path, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cls", [LatentTrainer, LatentSFTTrainer])
def test_logs_are_means_over_steps(cls, tmp_path):
    single = trainer_of(cls, model_of("full"), tmp_path, arguments_more={"max_steps": 3})
    single.train()
    model = model_of("full")
    trainer = trainer_of(cls, model, tmp_path, arguments_more={"max_steps": 3, "logging_steps": 3})
    trainer.train()
    (line,) = (line for line in trainer.state.log_history if "loss" in line)
    for name in ("loss", "data/value", "next_state/value", "slow/value", "slow/weighted", "last/value"):
        mean = sum(line[name] for line in single.state.log_history[:3]) / 3
        assert line[name] == pytest.approx(mean, rel=1e-6)
    assert latent_state(model).monitoring.metrics.sums == {}


@pytest.mark.parametrize("cls", [LatentTrainer, LatentSFTTrainer])
@pytest.mark.filterwarnings("ignore:`return_outputs=True`:FutureWarning")  # of trl, wherever metrics are computed
def test_evaluation_is_that_of_the_plain_model(cls, tmp_path):
    model, seen = model_of("full"), []
    options = {"eval_dataset": Dataset.from_list(documents()), "compute_metrics": lambda p: seen.append(p) or {}}
    found = trainer_of(cls, model, tmp_path, **options).evaluate()
    plain = attach(terms={}).eval()
    batch = batch_of(documents())
    assert found["eval_loss"] == pytest.approx(plain(**batch).loss.item(), rel=1e-6)
    assert seen[0].predictions.shape == (*batch["input_ids"].shape, 97)
    assert model.latent.step == 0


@pytest.mark.parametrize("more", [{}, {"packing": True, "max_length": 64}, {"padding_free": True}])
def test_trls_own_batches_give_the_same_means(more, tmp_path):
    data = [{**row, "labels": [-100, *row["labels"][1:]]} for row in documents()]
    trainer = LatentSFTTrainer(
        model_of("full"),
        arguments(tmp_path, config=SFTConfig, **{"dataset_kwargs": None, **more}),
        train_dataset=Dataset.from_list(data),
        processing_class=words(),
    )
    assert ("position_ids" in next(iter(trainer.get_train_dataloader()))) == bool(more)
    trainer.train()
    logs = reference("full")[0]
    assert {key: trainer.state.log_history[0][key] for key in logs} == pytest.approx(logs, rel=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("cls", [LatentTrainer, LatentSFTTrainer])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # by dynamo
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # by inductor
@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'>:DeprecationWarning")  # by dynamo
def test_compiled_and_half_precision_runs(cls, tuning, tmp_path):
    losses = []
    for more in ({}, {"torch_compile": True, "torch_compile_backend": "aot_eager"}, {"bf16": True}):
        trainer = trainer_of(cls, model_of(tuning), tmp_path, arguments_more={"max_steps": 2, **more})
        trainer.train()
        losses.append([line["loss"] for line in trainer.state.log_history[:2]])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=5e-3)


@pytest.mark.parametrize("cls", [LatentTrainer, LatentSFTTrainer])
def test_a_model_without_heads_is_refused(cls, tmp_path):
    with pytest.raises(ValueError, match="LlamaForCausalLM has no latent heads; call get_latent_model first"):
        trainer_of(cls, remove_latent(attach()), tmp_path)


@pytest.mark.parametrize(
    ("cls", "tuning"),
    [
        (LatentTrainer, "lora"),
        (LatentSFTTrainer, "full"),
        pytest.param(LatentTrainer, "full", marks=pytest.mark.slow),
        pytest.param(LatentSFTTrainer, "lora", marks=pytest.mark.slow),
    ],
)
def test_heads_may_have_a_rate_of_their_own(cls, tuning, tmp_path):
    before, moved = dict(model_of(tuning).named_parameters()), []
    for rate in (None, 3e-2):
        trainer = trainer_of(cls, model_of(tuning), tmp_path, head_learning_rate=rate, arguments_more={"max_steps": 1})
        trainer.train()
        moved.append({name: weight - before[name] for name, weight in trainer.model.named_parameters()})
        assert trainer.state.log_history[0]["learning_rate"] == 1e-2  # the network's
    for name, common in moved[0].items():
        times = 3 if "latent." in name else 1
        torch.testing.assert_close(moved[1][name], times * common, rtol=1e-3, atol=1e-6, msg=name)
