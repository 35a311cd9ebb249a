"""`training` is TrainingArguments: every option reaches the trainer, and every mistake is one line before a load."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from run_cli import FEW, TINY, latentlm
from transformers import TrainingArguments

from latentlm.config.schema import ConfigError
from latentlm.experiment.build_trainer import training_arguments
from latentlm.experiment.recipe import load_recipe
from latentlm.experiment.training import DEFAULTS, FREE, OWN, check_training, lasting


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def metrics(run: str) -> list[dict]:
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def test_every_option_reaches_the_trainer():
    words = {
        "num_train_epochs": 2.0, "learning_rate": 2e-4, "weight_decay": 0.3, "adam_beta1": 0.8, "adam_beta2": 0.95,
        "max_grad_norm": 0.5, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 3, "seed": 7, "bf16": True,
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 3, "logging_steps": 2, "save_steps": 5,
        "save_total_limit": 4, "use_cpu": True, "dataloader_num_workers": 1, "group_by_length": None,
        "optim": "adafactor", "neftune_noise_alpha": 5.0, "torch_empty_cache_steps": 4, "adam_epsilon": 1e-7,
    }  # fmt: skip
    del words["group_by_length"]
    recipe = load_recipe("smoke_text", ["training.max_steps=-1", *(f"training.{k}={v}" for k, v in words.items())])
    args = training_arguments(recipe, Path("run"), range(100))
    assert {name: getattr(args, name) for name in words} == words
    assert args.output_dir == "run/checkpoints"


def test_without_a_word_it_is_the_trainers_own():
    recipe = load_recipe("smoke_text")
    given = recipe.training.keys() | {"output_dir", "use_cpu", "dataloader_pin_memory"}
    args, theirs = training_arguments(recipe, Path("run")), TrainingArguments("run", use_cpu=True)
    differ = {
        field.name
        for field in dataclasses.fields(TrainingArguments)
        if getattr(args, field.name) != getattr(theirs, field.name)
    }
    assert differ <= given | {"logging_dir"}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("max_steps=0", "max_steps"), ("max_steps=-3", "max_steps"), ("max_steps=many", "max_steps"),
        ("learning_rate=0", "learning_rate"), ("learning_rate=-1", "learning_rate"),
        ("learning_rate=.nan", "learning_rate"),
        ("learning_rate=.inf", "learning_rate"), ("head_learning_rate=-.inf", "head_learning_rate"),
        ("num_train_epochs=0", "num_train_epochs"), ("num_train_epochs=.inf", "num_train_epochs"),
        ("adam_beta1=1", "adam_beta1"), ("adam_beta2=-0.1", "adam_beta2"), ("adam_epsilon=-1", "adam_epsilon"),
        ("weight_decay=-1", "weight_decay"), ("max_grad_norm=.nan", "max_grad_norm"),
        ("warmup_steps=-1", "warmup_steps"),
        ("seed=9223372036854775808", "seed"), ("seed=-1", "seed"), ("logging_steps=0", "logging_steps"),
        ("save_steps=0", "save_strategy"), ("save_steps=-5", "save_steps"), ("save_total_limit=0", "save_total_limit"),
        ("per_device_train_batch_size=0", "per_device_train_batch_size"),
        ("gradient_accumulation_steps=0", "gradient_acc"),
        ("dataloader_num_workers=-1", "dataloader_num_workers"), ("lr_scheduler_type=cosin", "did you mean 'cosine'"),
        ("optim=adamw_torh", "did you mean 'adamw_torch"), ("save_strategy=never", "save_strategy"),
        ("lerning_rate=3", "did you mean 'learning_rate'"), ("warmup=3", "did you mean 'warmup"),
        ("bf16=bf16", "bf16"), ("label_smoothing_factor=2", "label_smoothing_factor"),
        ("remove_unused_columns=true", "leave it out"),
        ("logging_steps=2.5", "logging_steps"), ("eval_strategy=steps", "data.validation"),
        ("load_best_model_at_end=true", "data.validation"), ("adam_epsilon=1e400", "finite"),
        ("max_steps=99999999999999999999", "large"), ("num_generations=4", "unknown key 'num_generations'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_before_anything_is_built(override, told, monkeypatch):
    def built(*args, **kwargs):
        raise AssertionError("a network was built before the mistake was found")

    for name in ("from_config", "from_pretrained"):
        monkeypatch.setattr(f"transformers.AutoModelForCausalLM.{name}", built)
    done = latentlm("train", "smoke_text", f"training.{override}")
    assert (done.code, done.out) == (2, ""), done
    assert done.err.count("\n") == 1
    assert done.err.startswith("latentlm: training")
    assert told in done.err
    assert not list(Path().iterdir())


def test_what_their_own_checks_refuse_is_one_line():
    words = ["training.load_best_model_at_end=true", "training.eval_strategy=epoch", "data.validation=0.2"]
    done = latentlm("train", "smoke_text", *words)  # saving every 10 steps does not fit
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "training: " in done.err


def test_yaml_reads_no_as_false_and_it_is_meant_as_no():
    assert check_training({"save_strategy": False}, "supervised")["save_strategy"] == "no"
    with pytest.raises(ConfigError, match="save_strategy"):
        check_training({"save_strategy": True}, "supervised")


def test_resuming_compares_what_changes_the_result_with_defaults_filled_in():
    plain = check_training({}, "supervised")
    assert lasting(plain, "supervised") == lasting({**plain, "adam_beta1": 0.9}, "supervised")
    assert lasting(plain, "supervised") != lasting({**plain, "adam_beta1": 0.8}, "supervised")
    assert lasting(plain, "supervised") == lasting({**plain, "logging_steps": 3, "max_steps": 9}, "supervised")
    assert all(
        any(key.startswith(free.rstrip("*")) for key in (*DEFAULTS, *OWN, *dir(TrainingArguments))) for free in FREE
    )


def test_held_out_loss_is_the_mean_over_tokens_of_the_plain_model():
    train = ["nitp", TINY, FEW, "data.max_length=48", "data.validation=0.25", "training.per_device_train_batch_size=4",
             "training.learning_rate=1e-2", "training.max_steps=12", "training.logging_steps=4"]  # fmt: skip
    done = latentlm("train", *train, "training.output_dir=run", "training.eval_strategy=steps", "training.eval_steps=5")
    assert done.code == 0, done.err
    held = {row["step"]: row for row in metrics("run") if "eval_loss" in row}
    assert sorted(held) == [5, 10, 12]
    assert all(row["eval_bits_per_token"] == pytest.approx(row["eval_loss"] / math.log(2)) for row in held.values())
    assert held[12]["eval_loss"] < held[5]["eval_loss"]
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (kind.from_pretrained("run/model") for kind in (AutoModelForCausalLM, AutoTokenizer))
    recipe = load_recipe("run")
    trained, kept = recipe.data.documents(recipe.training["seed"])
    assert len(kept) == round(0.25 * (len(kept) + len(trained)))
    assert not {row.text for row in kept} & {row.text for row in trained}
    total = count = 0.0
    for document in kept:
        ids = torch.tensor([[*tokenizer(document.text)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            logits = model.eval()(ids).logits[0, :-1].double()
        total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    assert held[12]["eval_loss"] == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("metric", ["eval_loss", "bits_per_token"])  # of which less is better, whatever its name
def test_held_out_files_and_the_best_checkpoint(metric):
    rows = [{"text": f"the number {n} is followed by the number {n + 1}"} for n in range(40)]
    for name, part in (("train.jsonl", rows[:32]), ("held.jsonl", rows[32:])):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in part))
    words = ["nitp", TINY, "data.source=train.jsonl", "data.validation=held.jsonl", "data.max_length=32",
             "training.learning_rate=0.03", "training.max_steps=20", "training.eval_strategy=steps",
             "training.eval_steps=5",
             "training.save_steps=5", "training.load_best_model_at_end=true",
             f"training.metric_for_best_model={metric}"]  # fmt: skip
    done = latentlm("train", *words, "training.output_dir=run")
    assert done.code == 0, done.err
    name = f"eval_{metric.removeprefix('eval_')}"
    losses = {row["step"]: row[name] for row in metrics("run") if name in row}
    assert len(set(losses.values())) > 1
    state = json.loads(max(Path("run/checkpoints").glob("*/trainer_state.json")).read_text())
    assert state["best_metric"] == pytest.approx(min(losses.values()), rel=1e-6)
    done = latentlm("report", "run")
    assert done.code == 0, done.err
    assert "held-out" in Path("run/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.validation=0.2"], "no 'eval_data_loss' here; known: eval_loss, eval_bits_per_token\n"),
        ([], "nothing is held out; set data.validation"),
    ],
)
def test_a_metric_that_no_evaluation_has_is_refused_before_a_network_is_built(words, told, monkeypatch):
    monkeypatch.setattr("latentlm.experiment.train.build_model", lambda *args: pytest.fail("a network was built"))
    words = [*words, "training.max_steps=1", "training.metric_for_best_model=eval_data_loss"]
    done = latentlm("train", "nitp", TINY, FEW, *words)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert f"training.metric_for_best_model: {told}" in done.err


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("0", "validation"),
        ("1.5", "validation"),
        ("0.001", "validation"),
        ("held.jsonl", "held.jsonl"),
        ("test", "share"),
    ],
)
def test_mistakes_with_held_out_data(value, told):
    done = latentlm("train", "nitp", TINY, FEW, f"data.validation={value}", "training.max_steps=1")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert told in done.err
