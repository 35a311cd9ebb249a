"""Every arm of every study is a recipe that loads, so a study does not end at its last arm."""

import sys
from pathlib import Path

import pytest
from paths import ROOT

from latentlm.config.catalog import read_recipe
from latentlm.config.schema import parse
from latentlm.experiment.recipe import load_recipe

sys.path.insert(0, str(ROOT / "scripts"))
from run_study import Study, overrides, slug

FOLDER = ROOT / "recipes" / "studies"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_arm_loads_and_has_a_folder_of_its_own(path):
    study = parse(Study, read_recipe(str(path)), path.stem)
    assert len({slug(arm) for arm in study.arms}) == len(study.arms)
    for arm, part in study.arms.items():
        own = overrides(study, arm, 3, Path("runs/some"))
        recipe = load_recipe(part.recipe, [*own, "training.seed=3"])
        assert recipe.objective.resolve(4) is not None
        assert not [each for each in own if "{seed}" in each or "{folder}" in each]


def test_braces_of_yaml_are_left_alone():
    study = parse(Study, read_recipe(str(FOLDER / "vision.yaml")), "vision")
    own = overrides(study, "salt", 3, Path("runs/some"))
    assert "objective.terms.seen_by_mae.target.checkpoint=runs/some/mae/3/model" in own
    assert any("agree_places: {kind: predict" in each for each in overrides(study, "places alone", 3, Path("x")))
