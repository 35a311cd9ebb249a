"""Every built-in recipe, shrunk: it trains and logs its terms by name; those that draw at random do the same twice.

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
from latentlm.experiment.recipe import load_recipe, save_recipe
from latentlm.experiment.train import train
from latentlm.objective.terms import Predict
from latentlm.objective.weight import schedule
from latentlm.report.compare_runs import first_difference, read

RECIPES = [name for name in recipe_names() if name != "finetune"]  # names no model and no data
SMOKE = [name for name in RECIPES if name.startswith("smoke_")]
TWICE = (  # whatever draws random numbers in training, each kind once
    "smoke_text",  # the order of documents, a regularizer's directions
    "smoke_vision",  # crops and masks
    "capi",  # clusters found online
    "dinov2",  # local crops, prototypes, masks, an EMA teacher
    "lejepa",  # directions of a Gaussian test
    "grpo",  # sampled answers
)
# these have every kind of part; the others are made of the same and are slow
OWN = ("smoke_text", "smoke_vision", "reversal", "nextlat", "llm_jepa", "hierarchy_documents", "grpo", "arithmetic",
       "mae", "dinov2", "lejepa", "swav", "capi", "salt", "constructive_places")  # fmt: skip
LIKE = [name for name in RECIPES if name not in OWN]
AFTER = {  # the recipe that has to be run before, and what names its network
    "salt": ("mae", "objective.terms.seen_by_mae.target.checkpoint"),
    "distill_depths": ("mae", "objective.terms.quarters.target.checkpoint"),
    "grpo": ("arithmetic", "model.name"),
}


def golden(name: str) -> Path:
    return TESTS / "golden" / f"{name}.jsonl"


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A recipe, shrunk, and the folder of its run, which is made once."""
    place = tmp_path_factory.mktemp("trained")

    def run(name: str, folder: str = "first") -> tuple[list[str], Path]:
        small = tiny(name)
        if name in AFTER:
            before, key = AFTER[name]
            small = [*small, f"{key}={run(before)[1] / 'model'}"]
        target = place / folder / name
        if not target.exists():
            train(load_recipe(name, [*small, f"training.output_dir={target}"]))
        return small, target

    return run


def losses(run: Path) -> dict[int, dict[str, float]]:
    """Step -> the loss and the value of every term."""
    return {
        step: {key: value for key, value in row.items() if key == "loss" or key.endswith("/value")}
        for step, row in read(run).items()
    }


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LIKE else ()) for name in RECIPES]
)
def test_a_recipe_trains_and_logs_its_terms(name, trained):
    small, run = trained(name)
    recipe = load_recipe(name, small)
    terms = recipe.objective.resolve(read_config(recipe).num_hidden_layers)
    expected = {"data", *terms} if recipe.objective.lm_weight else {*terms}
    assert sorted(losses(run)) == [1, 2, 3, 4]
    for step, row in losses(run).items():
        off = {name for name, term in terms.items() if not schedule(term.weight).on(step - 1, 4)}  # not run, no value
        assert {key.removesuffix("/value") for key in row if key != "loss"} == expected - off
        assert all(math.isfinite(value) for value in row.values())
    saved = load_recipe(run)
    training = saved.training | {"output_dir": recipe.training["output_dir"]}
    assert replace(saved, training=training) == recipe


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "smoke_text" else pytest.mark.slow) for name in TWICE]
)
def test_a_recipe_does_the_same_twice(name, trained):
    assert first_difference(losses(trained(name)[1]), losses(trained(name, "again")[1])) is None


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
    recorded, here = json.loads(golden(name).read_text().splitlines()[0])["versions"], versions()
    others = [f"{what} {recorded[what]} (here {here[what]})" for what in here if here[what] != recorded[what]]
    if others:
        pytest.skip(f"recorded with {', '.join(others)}: other versions round differently")
    monkeypatch.chdir(tmp_path)
    difference = first_difference(read(golden(name)), losses(train(load_recipe(name))), tolerance=1e-4)
    assert difference is None, difference


def versions() -> dict[str, str]:
    """What the numbers of a trajectory depend on, builds of the same release taken as one."""
    return {name: version(name).partition("+")[0] for name in ("torch", "transformers")} | {
        "machine": platform.machine()
    }


def write_golden(name: str) -> None:
    """The versions, and the losses of a smoke recipe."""
    rows = [{"step": step, **row} for step, row in losses(train(load_recipe(name))).items()]
    golden(name).write_text("".join(json.dumps(row) + "\n" for row in [{"versions": versions()}, *rows]))


if __name__ == "__main__":
    import tempfile

    os.chdir(tempfile.mkdtemp())
    for smoke in SMOKE:
        write_golden(smoke)
