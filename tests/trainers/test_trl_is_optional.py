"""Without TRL everything but its trainers works, and those name the extra that brings it."""

import re
import sys

import pytest
from paths import ROOT

import latentlm

TRAINERS = {"LatentSFTTrainer": "sft", "LatentDPOTrainer": "dpo", "LatentGRPOTrainer": "grpo"}


@pytest.mark.parametrize("name", TRAINERS)
def test_trainers_of_trl_name_its_extra(name, monkeypatch):
    for module in TRAINERS.values():
        monkeypatch.delitem(sys.modules, f"latentlm.trainers.{module}", raising=False)
    for module in [module for module in sys.modules if module.partition(".")[0] == "trl"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "trl", None)  # as if it were not installed
    with pytest.raises(ModuleNotFoundError) as told:
        getattr(latentlm, name)
    assert str(told.value) == f"{name}: trl is not installed; it comes with: pip install 'latentlm[trl]'"


def test_nothing_else_imports_trl():
    """Not when it is loaded: a GRPO recipe asks for it when it is read."""
    own = {ROOT / "latentlm" / "trainers" / f"{module}.py" for module in TRAINERS.values()}
    needs = rf"^(from|import) (trl|latentlm\.trainers\.({'|'.join(TRAINERS.values())}))\b"
    files = {*(ROOT / "latentlm").rglob("*.py"), *(ROOT / "evals").rglob("*.py")} - own
    assert not [path for path in files if re.search(needs, path.read_text(encoding="utf-8"), re.MULTILINE)]
