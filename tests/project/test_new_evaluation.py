"""Adding an evaluation is one package and one entry point: the command line and the report know none by name."""

import importlib.metadata
import sys

import pytest

from latentlm import cli
from latentlm.report import write_report

MODULE = '''
"""How long is the name of a run?"""

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table as View

from latentlm.report.contract import Cell, Note, Section, Table
from latentlm.result import Estimate, Result, Task, TaskKey

KEY = TaskKey("name_length", ("all",))


@dataclass(frozen=True)
class Options:
    """Settings.

    Args:
        out: result file.
        factor: of the length.
    """

    out: str | None = None
    factor: int = 1


def run(name, options):
    length = Estimate(float(options.factor * len(name)), low=0.0, high=99.0)
    task = Task({"length": length}, "length", {"original": 1}, 1)
    result = Result({KEY: task}, {"model_path": name})
    result.write(Path(options.out or Path(name) / "eval" / "name_length.json"))
    return result


def table(results):
    view = View("run", "length")
    for name, result in results.items():
        view.add_row(name, f"{result.tasks[KEY].value('length'):.0f}")
    return [view]


def report_sections(runs):
    rows = [[run.dot, Cell(f"{run.result.tasks[KEY].value('length'):.0f} <letters>")] for run in runs if run.result]
    headline = {"letters": [Cell(row[1].text) for row in rows]}
    return [Section("Length of names", [Table(["run", "letters"], rows), Note("of the folder")], headline)]
'''


@pytest.fixture
def name_length(tmp_path, monkeypatch):
    """A package that is not part of latentlm, with its entry point."""
    package = tmp_path / "packages" / "throw_away"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(MODULE)
    monkeypatch.syspath_prepend(package.parent)
    entry = importlib.metadata.EntryPoint("name_length", "throw_away", "latentlm.evals")
    known = [*importlib.metadata.entry_points(group="latentlm.evals"), entry]
    monkeypatch.setattr("latentlm.report.contract.entry_points", lambda group: known)
    yield
    sys.modules.pop("throw_away", None)


def test_a_new_evaluation_is_run_shown_and_reported(name_length, tmp_path, monkeypatch, capsys):
    run = tmp_path / "some_model"
    run.mkdir()
    (run / "config.json").write_text("{}")
    for words in (["--help"], ["name_length", "--help"], ["name_length", str(run), "factor=2"]):
        monkeypatch.setattr(sys, "argv", ["latentlm", "eval", *words])
        cli.main()
    said = capsys.readouterr().out
    assert "name_length" in said
    assert "factor" in said
    assert str(2 * len(str(run))) in said
    page = write_report([run], tmp_path / "out").read_text(encoding="utf-8")
    assert "<h2>Length of names</h2>" in page
    assert page.count(f"{2 * len(str(run))} &lt;letters&gt;") == 2  # in its section and in the overview
    assert "name_length/all" in page[page.index("<h2>Other scores") :]
