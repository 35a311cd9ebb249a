"""Every example runs as it is, offline and within seconds, and is short enough to be read at once."""

import ast
import importlib.util
import inspect

import pytest
from paths import ROOT

EXAMPLES = sorted((ROOT / "scripts/examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("default")  # what a reader's own session may warn of is not ours
def test_it_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for package in ("trl", "torchvision"):
        if package in path.read_text():
            pytest.importorskip(package)
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(*[str(tmp_path)] * len(inspect.signature(module.main).parameters))
    assert capsys.readouterr().out.strip(), "an example says what it did"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_is_short_and_begins_with_what_it_shows(path):
    text = path.read_text()
    assert len(text.splitlines()) < 60
    assert ast.get_docstring(ast.parse(text))
    assert '__name__ == "__main__"' in text


def test_the_readme_shows_them_all():
    readme = (ROOT / "README.md").read_text()
    assert EXAMPLES
    assert all(f"scripts/examples/{path.name}" in readme for path in EXAMPLES)
