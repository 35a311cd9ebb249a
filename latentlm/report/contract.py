"""What an evaluation is to the command line and the report: the contract, and the parts that a section is made of.

An evaluation is a module named by an entry point of the group ``latentlm.evals``; the name of the entry point is the
first part of its tasks' names. It has

    Options                                   a frozen dataclass; its docstring is the help text
    run(name, options) -> Result              score a run folder or checkpoint, and write the result
    table(results) -> list[rich.table.Table]  results by run, for the terminal
    report_sections(runs) -> list[Section]    what the report shows of it

A section is plain data; the templates of the report turn it into HTML and escape all text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Literal

from rich.table import Table as RichTable

from latentlm.result import Estimate, Result, TaskKey

GROUP = "latentlm.evals"


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what it says.
        small: after it in small print, such as an interval.
        tail: after that.
        run: number of a run, whose coloured dot is before the text.
        style: ``good``, ``bad``, or ``code``.
    """

    text: str
    small: str = ""
    tail: str = ""
    run: int | None = None
    style: Literal["", "good", "bad", "code"] = ""


@dataclass(frozen=True)
class Table:
    """Rows below a head; the first `text_columns` hold text, the others numbers.

    Attributes:
        head, rows: cells, or their text.
        text_columns: columns that are aligned to the left.
        folded: shown on a click on these words; empty: at once.
    """

    head: Sequence[Cell | str]
    rows: Sequence[Sequence[Cell | str]]
    text_columns: int = 1
    folded: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG.

    Attributes:
        name: of its file beside the page; empty: it is only in the page.
        alt: what it shows, in words.
        png: the file.
    """

    name: str
    alt: str
    png: bytes


@dataclass(frozen=True)
class Note:
    """A small paragraph that explains what is shown."""

    text: str


@dataclass(frozen=True)
class Hint:
    """Something that is missing or to be careful about, and the command that makes it."""

    text: str
    command: str = ""
    run: int | None = None


@dataclass(frozen=True)
class Heading:
    """Title of what follows inside a section."""

    text: str


@dataclass(frozen=True)
class Text:
    """Preformatted lines, shown at once or folded."""

    text: str
    folded: str = ""


Part = Table | Picture | Note | Hint | Heading | Text


@dataclass(frozen=True)
class Section:
    """A part of the page with a title.

    Attributes:
        title: of the section.
        parts: from top to bottom; none: the section is left out.
        headline: columns for the overview at the top of the page, a cell for each run.
        shown: tasks that need not be listed with all other scores.
    """

    title: str
    parts: Sequence[Part]
    headline: Mapping[str, Sequence[Cell | str]] = field(default_factory=dict)
    shown: frozenset[TaskKey] = frozenset()


@dataclass(frozen=True)
class EvaluatedRun:
    """A run as an evaluation's section sees it.

    Attributes:
        label: its name on the page.
        number: its place among the runs; colours and dashes depend on it.
        path: run folder, other folder or result file.
        result: the tasks of this evaluation; None where there are none.
        is_trained: whether it is a folder in which something was trained.
        data_kind: ``kind`` of the data it was trained on; empty where that is not known.
    """

    label: str
    number: int
    path: Path
    result: Result | None
    is_trained: bool
    data_kind: str

    @property
    def dot(self) -> Cell:
        """Its label after a dot of its colour."""
        return Cell(self.label, run=self.number)


@dataclass(frozen=True)
class Evaluation:
    """An installed evaluation: its module, and what the contract says of it.

    Attributes:
        name: of the entry point.
        module: that the entry point names.
    """

    name: str
    module: ModuleType

    @property
    def about(self) -> str:
        """What it measures, in the words of its module."""
        return (self.module.__doc__ or "").strip()

    @property
    def options(self) -> type:
        """The class of its options."""
        return self.module.Options

    def run(self, name: str, options: object) -> Result:
        """Score a run folder or checkpoint, and write the result."""
        return self.module.run(name, options)

    def table(self, results_by_run: dict[str, Result]) -> list[RichTable]:
        """Tables for the terminal."""
        return self.module.table(results_by_run)

    def report_sections(self, runs: Sequence[EvaluatedRun]) -> list[Section]:
        """Sections of the report; runs without results of this evaluation are among the runs."""
        return self.module.report_sections(runs)


def evaluation_names() -> list[str]:
    """Evaluations that are installed, in order."""
    return sorted(entry.name for entry in entry_points(group=GROUP))


def load_evaluation(name: str) -> Evaluation:
    """An installed evaluation; what it imports only when it is run is not loaded yet."""
    (entry,) = (entry for entry in entry_points(group=GROUP) if entry.name == name)
    return Evaluation(name, entry.load())


def number(value: float | int | None) -> str:
    """Four digits that mean something; a dash for nothing."""
    return "-" if value is None else f"{value:.4g}"


def percent(value: float | None) -> str:
    """One digit after the point; a dash for nothing."""
    return "-" if value is None or value != value else f"{100 * value:.1f}"


def percent_cell(score: Estimate | None, tail: str = "") -> Cell:
    """A share in per cent with its interval."""
    if score is None or not score.exists:
        return Cell("-")
    return Cell(percent(score.value), between(score.times(100.0), ".0f"), tail)


def between(score: Estimate, digits: str) -> str:
    """An interval in brackets, or nothing."""
    return "" if score.interval is None else f"[{score.interval[0]:{digits}}, {score.interval[1]:{digits}}]"
