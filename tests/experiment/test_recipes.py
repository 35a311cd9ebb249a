"""Every built-in recipe, shrunk: it trains, logs its terms by name, and does the same twice.

python tests/experiment/test_recipes.py        writes tests/golden/*.jsonl anew, after a change that is meant to differ
"""

import json
import math
import os
import platform
import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from paths import TESTS
from tiny_recipes import tiny

from latentlm.config.catalog import recipe_names
from latentlm.config.schema import dump, kind_of
from latentlm.data import Facts
from latentlm.experiment.build_model import read_config
from latentlm.experiment.compare_runs import first_difference, read
from latentlm.experiment.recipe import load_recipe, save_recipe
from latentlm.experiment.train import train
from latentlm.objective.terms import Predict

RECIPES = [name for name in recipe_names() if name != "finetune"]  # names no model and no data
SMOKE = [name for name in RECIPES if name.startswith("smoke_")]
AFTER = {  # the recipe that has to be run before, and what names its network
    "salt": ("mae", "objective.terms.seen_by_mae.target.checkpoint"),
    "grpo": ("arithmetic", "model.name"),
}


def golden(name: str) -> Path:
    return TESTS / "golden" / f"{name}.jsonl"


@pytest.fixture(scope="session")
def taught(tmp_path_factory):
    """Overrides that name a network trained before, where a recipe needs one."""
    place = tmp_path_factory.mktemp("before")

    def overrides(name: str) -> list[str]:
        if name not in AFTER:
            return []
        before, key = AFTER[name]
        folder = place / before
        if not folder.exists():
            train(load_recipe(before, [*tiny(before), f"training.output_dir={folder}"]))
        return [f"{key}={folder / 'model'}"]

    return overrides


def losses(run: Path) -> dict[int, dict[str, float]]:
    """Step -> the loss and the value of every term."""
    return {
        step: {key: value for key, value in row.items() if key == "loss" or key.endswith("/value")}
        for step, row in read(run).items()
    }


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_and_logs_its_terms_and_does_the_same_twice(name, tmp_path, monkeypatch, taught):
    monkeypatch.chdir(tmp_path)
    small = [*tiny(name), *taught(name)]
    recipe = load_recipe(name, small)
    terms = recipe.objective.resolve(read_config(recipe).num_hidden_layers)
    expected = {"data", *terms} if recipe.objective.lm_weight else {*terms}
    runs = [train(load_recipe(name, [*small, f"training.output_dir={run}"])) for run in ("a", "b")]
    assert sorted(losses(runs[0])) == [1, 2, 3, 4]
    for row in losses(runs[0]).values():
        assert {key.removesuffix("/value") for key in row if key != "loss"} == expected
        assert all(math.isfinite(value) for value in row.values())
    assert first_difference(losses(runs[0]), losses(runs[1])) is None
    saved = load_recipe(runs[0])
    training = saved.training | {"output_dir": recipe.training["output_dir"]}
    assert replace(saved, training=training) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_resolved_recipe_is_valid_and_stays_what_it_is(name, tmp_path):
    recipe = load_recipe(name)
    save_recipe(recipe, tmp_path / "resolved.yaml")
    again = load_recipe(tmp_path / "resolved.yaml")
    assert again == recipe
    assert dump(again) == yaml.safe_load((tmp_path / "resolved.yaml").read_text())


@pytest.mark.parametrize("name", recipe_names())
def test_a_header_says_what_it_is_and_gives_the_equation(name):
    lines = recipe_names()[name].read_text(encoding="utf-8").splitlines()
    header = [line for line in lines if line.startswith("#")]
    assert lines[: len(header)] == header, "comments stand at the top"
    assert re.match(r"# [A-Z].+: .+\.$", lines[0]), "first line: what it is called, colon, what it does"
    assert any(re.match(r"#   L = .+", line) for line in header), "no line with the equation, '#   L = ...'"


def test_the_smoke_recipe_has_every_kind_of_term():
    terms = load_recipe("smoke_text").objective.terms.values()
    assert {kind_of(type(term)) for term in terms} == {"predict", "levels", "regularize"}
    assert {kind_of(type(term.target)) for term in terms if isinstance(term, Predict)} == {"token_embeddings", "ema"}
    assert isinstance(load_recipe("smoke_text").source, Facts)


@pytest.mark.parametrize("name", SMOKE)
def test_a_smoke_recipe_follows_its_golden_trajectory(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    difference = first_difference(read(golden(name)), losses(train(load_recipe(name))), tolerance=1e-4)
    assert difference is None, f"{difference}; golden: {golden(name).read_text().splitlines()[0]}"


def write_golden(name: str) -> None:
    """The versions, and the losses of a smoke recipe."""
    rows = [{"step": step, **row} for step, row in losses(train(load_recipe(name))).items()]
    versions = {name: version(name) for name in ("torch", "transformers")} | {"machine": platform.machine()}
    golden(name).write_text("".join(json.dumps(row) + "\n" for row in [{"versions": versions}, *rows]))


if __name__ == "__main__":
    import tempfile

    os.chdir(tempfile.mkdtemp())
    for smoke in SMOKE:
        write_golden(smoke)
