"""Imports go one way: up the ladder, and only some modules may know some things."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "latentlm"

# a module may import from rungs below its own, and from its own rung where the inner order below allows it
LADDER = [
    ["types", "config", "options"],
    ["dist", "sharded", "positions"],
    ["losses"],
    ["backbones", "tap", "heads", "narrow", "predictors", "ema", "token_code", "assign", "targets"],
    ["terms", "levels", "through", "pairing", "objective"],
    ["monitor", "metrics"],
    ["call", "hiding", "teaching", "look", "accumulating", "run", "selecting", "sparse_head", "outputs", "attach"],
    ["isolation", "depth", "model", "card", "export"],
    ["data", "texts", "training", "batch", "recipe", "network", "folder", "callbacks", "trainer", "sft", "dpo", "grpo"],
    ["prepare", "trainers", "train", "report", "doctor"],
    ["cli", "__main__"],
]
RUNG = {name: place for place, names in enumerate(LADDER) for name in names}
ORDER = {name: place for place, name in enumerate(name for names in LADDER for name in names)}


def _imports(path: Path) -> set[str]:
    """First names below `latentlm` that a file imports, lazily or not."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("latentlm.")}
    return found


FILES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py" or path.parent != ROOT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_up_the_ladder(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for other in _imports(path) - {own}:
        assert ORDER[other] < ORDER[own], f"{own} imports {other}, which stands above it"


def test_losses_know_nothing_but_tensors():
    for path in (ROOT / "losses").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and "latentlm" in node.module:
                assert node.module.split(".")[1] in {"losses", "types", "dist"}, f"{path.name}: {node.module}"


def test_the_library_never_imports_recipes_or_evals_as_code():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert "import latentlm_evals" not in text, path
        assert "from latentlm_evals" not in text, path


def test_no_file_is_long():
    for folder in ("latentlm", "evals", "tests", "scripts"):
        for path in (ROOT.parent / folder).rglob("*.py"):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines <= 310, f"{path.name} has {lines} lines"
