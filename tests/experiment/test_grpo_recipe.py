"""GRPO as a recipe: rewards are the data's own check, heads go on, and mistakes are told before anything is loaded."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_recipes import tiny

from latentlm.config.schema import ConfigError
from latentlm.data import Problem
from latentlm.experiment.recipe import load_recipe
from latentlm.experiment.train import train

DATA = "data.source={kind: arithmetic, num_train: 12, num_test: 3, highest: 4}"


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "before"
    return train(load_recipe("arithmetic", [*tiny("arithmetic"), DATA, f"training.output_dir={folder}"]))


def grpo(before, folder, *more):
    words = [*tiny("grpo"), DATA, f"model.name={before / 'model'}", f"training.output_dir={folder}", *more]
    return train(load_recipe("grpo", words))


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_rewards_are_what_the_data_find_right(before, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Problem, "solved", lambda self, written: asked.append((self, written)) or self.answer > "4")
    (row, *_) = rows(grpo(before, tmp_path / "run", "training.max_steps=1"))
    assert len(asked) == 8
    train_problems = set(load_recipe(tmp_path / "run").source.problems("train"))
    assert {problem for problem, _ in asked} <= train_problems
    assert row["rewards/right/mean"] == sum(problem.answer > "4" for problem, _ in asked) / 8


def test_heads_go_on_where_they_were(before, tmp_path):
    run = grpo(before, tmp_path / "run", "training.learning_rate=1e-9", "training.max_steps=1")
    old, new = (load_file(folder / "model" / "model.safetensors") for folder in (before, run))
    assert old.keys() == new.keys()
    assert {key for key in old if not torch.allclose(old[key].float(), new[key].float(), atol=1e-7)} == {
        "latent._extra_state"  # the steps, which are counted on
    }
    (row,) = rows(run)
    assert row["middle/value"] < 0.5
    more = ["model.load_latent_heads=false", "training.learning_rate=1e-9", "training.max_steps=1"]
    with pytest.warns(UserWarning, match="they start again"):
        fresh = grpo(before, tmp_path / "fresh", *more)
    assert rows(fresh)[0]["middle/value"] != pytest.approx(row["middle/value"], rel=1e-3)


def test_heads_of_other_terms_are_refused(before, tmp_path):
    with pytest.raises(ConfigError, match="belong to other terms"):
        grpo(before, tmp_path / "run", "objective.terms={}")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            ["training.num_generations=5"],
            "training.num_generations: 8 completions a step (batch) are not a multiple of 5",
        ),
        (["training.num_generation=4"], "unknown key 'num_generation' for GRPOConfig; did you mean 'num_generations'?"),
        (["training.num_generations=1"], "training.num_generations: 1; set it to 2 or more"),
        (["training.temperature=0"], "training.temperature: 0; set it above 0"),
        (["trainer=dpo"], "trainer: unknown value 'dpo'"),
        (["data.source={kind: facts}"], "trainer: grpo needs data that check an answer, facts cannot"),
        (
            ["objective.terms.middle.source.at=source_last"],
            "objective.terms.middle: reads source_last, which completions",
        ),
        (["model.name=null", "model.config={model_type: llama}"], "load_latent_heads: saved heads are in a folder"),
    ],
)
def test_mistakes_are_one_line(more, told):
    with pytest.raises(ConfigError) as caught:
        load_recipe("grpo", [*tiny("grpo"), *more])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
