"""The built wheel, installed into a folder of its own, does what the checkout does."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest
from paths import ROOT

pytestmark = pytest.mark.skipif(
    int(version("setuptools").split(".")[0]) < 77,
    reason="builds without network: needs setuptools 77, as the project does",
)
PARTS = ("latentlm", "evals", "recipes", "pyproject.toml", "README.md", "LICENSE")
HOMES = {
    "latentlm": ROOT / "latentlm",
    "latentlm_evals": ROOT / "evals" / "latentlm_evals",
    "latentlm_recipes": ROOT / "recipes",
}


def run(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that no build folder is left in the checkout; without network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        path = ROOT / part
        if path.is_dir():
            shutil.copytree(path, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / part)
    offline = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    run("-m", "pip", "wheel", *offline, "--wheel-dir", str(out), ".", cwd=source)
    return next(out.glob("latentlm-*.whl"))


def test_everything_but_pages_is_inside(wheel):
    names = set(ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == HOMES.keys()
    for package, folder in HOMES.items():
        files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        wanted = {file.as_posix() for file in files if "__pycache__" not in file.parts and file.suffix != ".md"}
        assert wanted
        assert not {f"{package}/{file}" for file in wanted} - names


@pytest.mark.slow
def test_an_installed_wheel_trains_and_evaluates_anywhere(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    ZipFile(wheel).extractall(site)  # all that pip does to a wheel of Python alone
    script = (
        "import sys, runpy\nfrom importlib.util import find_spec\n"
        f"print(*(find_spec(name).origin for name in {tuple(HOMES)}))\n"
        "train = ['train', 'smoke_text', 'training.output_dir=run', 'training.max_steps=3']\n"
        "for words in (train, ['eval', 'reversal', 'run']):\n"
        "    sys.argv = ['latentlm', *words]\n    runpy.run_module('latentlm', run_name='__main__')\n"
    )
    done = run("-c", script, cwd=elsewhere, PYTHONPATH=str(site), OMP_NUM_THREADS="1")
    homes, folder, *rest = done.stdout.splitlines()
    assert homes.split() == [str(site / name / "__init__.py") for name in HOMES]  # and not the checkout
    assert folder == "run"
    assert "Reversal: exact match" in "".join(rest)
    # no warning of a library: only what a training says
    assert all(line.startswith(("training ", "step ", "monitor: ")) for line in done.stderr.splitlines()), done.stderr
    facts = json.loads((elsewhere / "run" / "run.json").read_text())
    assert facts["commit"] is None  # it is no checkout
    assert facts["command"].startswith("latentlm train smoke_text")
    assert sorted(path.name for path in elsewhere.iterdir()) == ["run"]
