"""Imports go one way, between packages: each may use what stands before it in the ladder, never what stands after."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest
from paths import ROOT

# packages of one line do not know each other; a package may import from every line above its own
LADDER = """
types distributed whole_files
config result
losses backbones
components
objective data
monitor
attach
trainers
experiment export report
cli
__main__
"""
RUNG = {name: height for height, line in enumerate(LADDER.split("\n")) for name in line.split()}

# the same for the evaluations, which stand above the whole library; what they share is below them. `*`: all others
EVALUATIONS = """
lazy statistics
models probes
*
lm_eval_tasks vision
"""
EVALUATION_RUNG = {name: height for height, line in enumerate(EVALUATIONS.split("\n")) for name in line.split()}


# objects of our own: a parameter that takes one says which, so that a hidden circle shows as an import
OWN = "run|attachment|forward|model_state|trainer|context|term|terms|target|recipe|objective|view|batch_config|result"
LIBRARY = sorted((ROOT / "latentlm").rglob("*.py"))
EVALS = ROOT / "evals" / "latentlm_evals"
EVAL_FILES = sorted(EVALS.rglob("*.py"))
WHEEL = {"latentlm": ROOT / "latentlm", "latentlm_evals": EVALS, "latentlm_recipes": ROOT / "recipes"}


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, lazily or not; ``from a import b`` counts as ``a.b``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports say their package in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def packages(path: Path) -> set[str]:
    """Packages of the library that a file imports; what the library itself exports lies behind `latentlm.__init__`."""
    names = {name.split(".")[1] for name in imports(path) if name.startswith("latentlm.")}
    return {name for name in names if (ROOT / "latentlm" / name).exists() or name in RUNG} | {
        "attach" for name in names if name not in RUNG and not (ROOT / "latentlm" / name).exists()
    }


def test_every_package_is_in_the_wheel():
    tomllib = pytest.importorskip("tomllib", reason="comes with Python 3.11")
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    there = {
        ".".join([package, *path.parent.relative_to(folder).parts])
        for package, folder in WHEEL.items()
        for path in folder.rglob("__init__.py")
    }
    assert sorted(listed) == listed == sorted(there), "[tool.setuptools] packages in pyproject.toml"


def test_every_package_has_its_place():
    top = {path.relative_to(ROOT / "latentlm").parts[0].removesuffix(".py") for path in LIBRARY} - {"__init__"}
    assert top == RUNG.keys()


def test_no_folder_is_too_full():
    """What fits on one screen is found by looking."""
    tops = [ROOT / name for name in ("latentlm", "evals", "recipes", "scripts", "tests")]
    counts = Counter(path.parent.relative_to(ROOT) for top in tops for path in top.rglob("*.py"))
    assert len(counts) > 20
    assert not {str(folder): count for folder, count in counts.items() if count > 15}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_up_the_ladder(path):
    own = path.relative_to(ROOT / "latentlm").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for other in packages(path) - {own}:
        assert RUNG[other] < RUNG[own], f"{path.relative_to(ROOT)} imports {other}, which does not stand above {own}"


def test_losses_know_nothing_but_tensors():
    for path in (ROOT / "latentlm" / "losses").glob("*.py"):
        assert packages(path) <= {"losses", "types", "distributed"}, path.name


def test_a_user_class_finds_units_and_reads_no_data_sets():
    units = tuple(f"latentlm.data.text.{name}." for name in ("collate", "unit_collator", "units"))
    for path in (ROOT / "latentlm" / "trainers").glob("*.py"):
        assert all(name.startswith(units) for name in imports(path) if name.startswith("latentlm.data")), path.name


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_knows_no_evaluation(path):
    assert not [name for name in imports(path) if name.startswith(("latentlm_evals", "latentlm_recipes"))]


def evaluation_rung(name: str) -> int:
    return EVALUATION_RUNG.get(name, EVALUATION_RUNG["*"])


def test_the_ladder_names_what_there_is():
    top = {path.relative_to(EVALS).parts[0].removesuffix(".py") for path in EVAL_FILES}
    assert EVALUATION_RUNG.keys() - {"*"} < top


@pytest.mark.parametrize("path", EVAL_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_evaluations_share_what_is_below_them_and_do_not_know_each_other(path):
    """But for vision, which uses scores of coherence, and the tasks of lm-eval, which are those of reversal."""
    own = path.relative_to(EVALS).parts[0].removesuffix(".py")
    others = {name.split(".")[1] for name in imports(path) if name.startswith("latentlm_evals.")} - {own}
    for other in others:
        assert evaluation_rung(other) < evaluation_rung(own), f"{path.name} imports {other}, not below {own}"


@pytest.mark.parametrize("path", LIBRARY + EVAL_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_own_objects_are_typed(path):
    bare = re.findall(rf"\b(?:{OWN}): Any\b", path.read_text(encoding="utf-8"))
    assert not bare, f"{path.relative_to(ROOT)}: {bare[0]} hides what it is"
