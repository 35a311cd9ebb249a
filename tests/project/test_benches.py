"""The scripts outside the package: they import what is there, and every bench runs a round."""

import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest
from paths import ROOT

SCRIPTS = sorted(path for folder in ("scripts", "scripts/bench") for path in (ROOT / folder).glob("*.py"))
TINY = ["--batch", "2", "--rounds", "1", "--no-memory"]
BENCHES = {
    "step": [*TINY, "--length", "32"],
    "second_view": [*TINY, "--length", "32"],
    "teacher": [*TINY, "--length", "32"],
    "units": [*TINY, "--length", "144"],
    "vision": TINY,
    "losses_vs_lightly": [],
    "images": [
        "--images",
        "40",
        "--size",
        "32",
        "--batch",
        "2",
        "--batches",
        "1",
        "--rounds",
        "1",
        "--workers",
        "1",
        "--steps",
        "3",
    ],
}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT / "scripts")))
def test_a_script_finds_what_it_imports(path, monkeypatch):
    monkeypatch.syspath_prepend(str(path.parent))
    try:
        assert import_module(path.stem).__doc__
    finally:
        for each in SCRIPTS:
            sys.modules.pop(each.stem, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_runs_one_round(name):
    if name == "losses_vs_lightly" and find_spec("lightly") is None:
        pytest.skip("needs lightly: pip install --no-deps lightly")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "bench" / f"{name}.py"), *BENCHES[name]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "step ms" in done.stdout or name in ("losses_vs_lightly", "images")


def test_every_bench_is_run():
    assert {path.stem for path in SCRIPTS if path.parent.name == "bench"} == BENCHES.keys() | {"interleaved"}
