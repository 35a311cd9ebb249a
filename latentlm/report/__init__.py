"""One HTML page (and its pictures) about one run, or about several side by side."""

from collections.abc import Sequence
from pathlib import Path

from latentlm.report.page import render
from latentlm.report.plots import draw
from latentlm.report.run import read_runs


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write a self-contained page about run folders; its pictures also lie beside it as PNG files.

    Args:
        runs: run folders, whose missing files are named with the command that makes them; other folders (a model, an
            adapter) with results in ``eval/``; result files written by ``latentlm eval ... --out FILE``.
        out: the page, or a folder that gets a ``report.html``.
    """
    page = out if out.suffix == ".html" else out / "report.html"
    found = read_runs(runs)
    page.parent.mkdir(parents=True, exist_ok=True)
    pictures = draw(found)
    for name, png in pictures.items():
        (page.parent / f"{page.stem}-{name}.png").write_bytes(png)
    page.write_text(render(found, pictures), encoding="utf-8")
    return page


__all__ = ["write_report"]
