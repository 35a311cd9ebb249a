"""One HTML page (and its pictures) about one run, or about several side by side."""

from collections.abc import Sequence
from pathlib import Path

from latentlm.report.eval_results import check_free, write_merged
from latentlm.report.page import render
from latentlm.report.plots import draw
from latentlm.report.run_record import read_runs


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write a self-contained page about run folders; its pictures also lie beside it as PNG files.

    All scores lie beside it too, in lm-eval's shape, as ``<page>-scores.json``: ``results``, ``versions``,
    ``n-samples``, ``higher_is_better`` and ``configs``, each a mapping from task; ``transfer`` and ``contexts`` of
    coherence; ``warnings``; and ``merged_from``, the files. Of several runs it holds such a mapping for each label in
    ``runs``.

    Args:
        runs: run folders, whose missing files are named with the command that makes them; other folders (a model, an
            adapter) with results in ``eval/``; result files written by ``latentlm eval ... --out FILE``. Files with
            different evaluations of the same model are one run, called like the model's folder; with two files of the
            same evaluation nobody can say which belong together, and each stays a run of its own.
        out: the page, or a folder that gets a ``report.html``.
    """
    page = out if out.suffix == ".html" else out / "report.html"
    found = read_runs(runs)
    merged = page.with_name(f"{page.stem}-scores.json")
    check_free(merged)
    page.parent.mkdir(parents=True, exist_ok=True)
    pictures = draw(found)
    for name, png in pictures.items():
        (page.parent / f"{page.stem}-{name}.png").write_bytes(png)
    page.write_text(render(found, pictures), encoding="utf-8")
    write_merged(merged, {run.label: run.merged for run in found})
    return page


__all__ = ["write_report"]
