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

DATA = "data={kind: arithmetic, num_train: 12, num_test: 3, highest: 4}"


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "before"
    return train(load_recipe("text/arithmetic", [*tiny("text/arithmetic"), DATA, f"run.dir={folder}"]))


def grpo(before, folder, *more):
    words = [*tiny("text/grpo"), DATA, f"model.name={before / 'model'}", f"run.dir={folder}", *more]
    return train(load_recipe("text/grpo", words))


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_rewards_are_what_the_data_find_right(before, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Problem, "solved", lambda self, written: asked.append((self, written)) or self.answer > "4")
    (row, *_) = rows(grpo(before, tmp_path / "run", "optim.steps=1"))
    assert len(asked) == 8
    train_problems = set(load_recipe(tmp_path / "run").data.problems("train"))
    assert {problem for problem, _ in asked} <= train_problems
    assert row["rewards/right/mean"] == sum(problem.answer > "4" for problem, _ in asked) / 8


def test_heads_go_on_where_they_were(before, tmp_path):
    run = grpo(before, tmp_path / "run", "optim.learning_rate=1e-9", "optim.steps=1")
    old, new = (load_file(folder / "model" / "model.safetensors") for folder in (before, run))
    assert old.keys() == new.keys()
    assert {key for key in old if not torch.allclose(old[key].float(), new[key].float(), atol=1e-7)} == {
        "latent._extra_state"  # the steps, which are counted on
    }
    (row,) = rows(run)
    assert row["middle/value"] < 0.5
    fresh = grpo(before, tmp_path / "fresh", "model.heads=fresh", "optim.learning_rate=1e-9", "optim.steps=1")
    assert rows(fresh)[0]["middle/value"] != pytest.approx(row["middle/value"], rel=1e-3)


def test_heads_of_other_terms_are_refused(before, tmp_path):
    with pytest.raises(ConfigError, match="belong to other terms; use heads: fresh"):
        grpo(before, tmp_path / "run", "objective.terms={}")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["trainer.group=5"], "trainer.group: 8 completions a step (batch) are no multiple of 5"),
        (["trainer.groups=4"], "unknown key 'groups' for Grpo; did you mean 'group'?"),
        (["trainer.temperature=0"], "temperature: 0.0; set it above 0"),
        (["trainer.kind=dpo"], "trainer: unknown kind 'dpo'"),
        (["data={kind: facts}"], "trainer: grpo needs data that check an answer, facts cannot"),
        (
            ["objective.terms.middle.source.at=source_last"],
            "objective.terms.middle: reads source_last, which completions",
        ),
        (["model.name=null", "model.config={model_type: llama}"], "heads: saved ones lie in a folder"),
    ],
)
def test_mistakes_are_one_line(more, told):
    with pytest.raises(ConfigError) as caught:
        load_recipe("text/grpo", [*tiny("text/grpo"), *more])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
