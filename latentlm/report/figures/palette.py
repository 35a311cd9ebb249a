"""Colours, sizes and the legend of all pictures; the colour and line of a run are the same in all of them."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

Figure = Any  # of matplotlib, which is optional and slow to import

# Okabe & Ito 2008, without yellow: told apart with colour-blind eyes and on paper
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":")
COLORMAP = "cividis"  # made for colour-blind eyes, and as light in grey as in colour
INK, GRID, FLOOR = "#333333", "#e3e3e3", "#999999"
WIDTH = 9.0  # inches
STYLE: dict[Any, Any] = {  # matplotlib's own type of keys cannot be named without it
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": FLOOR,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.dpi": 110,
    "savefig.dpi": 160,
}


def color(number: int) -> str:
    """Colour of the run with this number."""
    return COLORS[number % len(COLORS)]


def line_style(number: int) -> dict[str, Any]:
    """Dashes differ too, so that equal curves do not hide each other."""
    return {"color": color(number), "linestyle": DASHES[number % len(DASHES)]}


@contextmanager
def style() -> Iterator[None]:
    """Inside, pictures are drawn in the style of the report."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise ValueError("matplotlib is missing: pip install 'latentlm[report]'") from None
    with mpl.rc_context(STYLE):
        yield


def plain(text: str) -> str:
    """Text that matplotlib takes literally: a pair of dollars would start a formula."""
    return text.replace("$", r"\$")


def png(figure: Figure) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def legend(
    figure: Figure, labels: Sequence[str], *, patches: bool = False, notes: Mapping[str, str] | None = None
) -> None:
    """Above all panels, so that it never covers data; `notes` are written after labels."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    said = [plain(label + (notes or {}).get(label, "")) for label in labels]
    marks = [Patch(color=color(k)) if patches else Line2D([], [], **line_style(k)) for k in range(len(labels))]
    fits = sum(len(label) + 8 for label in said) <= 110
    columns = len(said) if fits else max(1, 110 // (max(map(len, said)) + 8))
    figure.legend(marks, said, loc="outside upper left", ncols=columns, frameon=False)
