"""One HTML page (and its pictures) about one run, or about several side by side."""

from collections.abc import Sequence
from pathlib import Path

from latentlm.report import training_sections as training
from latentlm.report.contract import Picture, Section, evaluation_names, load_evaluation
from latentlm.report.figures.palette import style
from latentlm.report.page import render
from latentlm.report.result_files import check_free, check_page, write_merged
from latentlm.report.run_record import RunRecord, read_runs
from latentlm.whole_files import write_bytes, write_text


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write a self-contained page about run folders; its pictures are also beside it as PNG files.

    All scores are beside it too, in lm-eval's shape, as ``<page>-scores.json``: ``results``, ``versions``,
    ``n-samples``, ``higher_is_better`` and ``configs``, each a mapping from task; what only one evaluation has, such as
    ``transfer`` of coherence; ``warnings``; and ``merged_from``, the files. Of several runs it holds such a mapping for
    each label in ``runs``.

    Args:
        runs: run folders, whose missing files are named with the command that makes them; other folders (a model, an
            adapter) with results in ``eval/``; result files written by ``latentlm eval ... out=FILE``. Files with
            different evaluations of the same model are one run, called like the model's folder; with two files of the
            same evaluation nobody can say which belong together, and each stays a run by itself.
        out: the page, or a folder that gets a ``report.html``.
    """
    page = out if out.suffix == ".html" else out / "report.html"
    found = read_runs(runs)
    merged = page.with_name(f"{page.stem}-scores.json")
    check_page(page)
    check_free(merged)
    with style():
        sections = page_sections(found)
    title = "latentlm: " + ", ".join(run.label for run in found)
    html = render(title, sections)
    parts = [part for section in sections for part in section.parts if isinstance(part, Picture) and part.name]
    pictures = {page.with_name(f"{page.stem}-{part.name}.png"): part.png for part in parts}
    if not page.exists() and (foreign := [str(path) for path in pictures if path.exists()]):
        raise ValueError(f"{foreign[0]}: a picture of the page would overwrite it: give the page another name")
    for path, png in pictures.items():
        write_bytes(path, png)
    write_text(page, html)
    write_merged(merged, {run.label: (run.result, run.files) for run in found})
    return page


def page_sections(runs: Sequence[RunRecord]) -> list[Section]:
    """All sections in order: each evaluation is asked for what it shows, and none is known here by name."""
    evaluated: list[Section] = []
    for name in evaluation_names():
        evaluated += load_evaluation(name).report_sections([run.evaluated(name) for run in runs])
    shown = frozenset(key for section in evaluated for key in section.shown)
    return [
        training.overview(runs, [section.headline for section in evaluated]),
        training.warnings(runs),
        training.health(runs),
        *evaluated,
        training.other_scores(runs, shown),
        training.loss_curves(runs),
        training.depth(runs),
        training.found_targets(runs),
        training.monitors(runs),
        training.recipes(runs),
        training.origin(runs),
    ]


__all__ = ["write_report"]
