"""The page itself: one file, pictures inside, nothing loaded from elsewhere."""

import base64
from collections.abc import Sequence

from latentlm.report.contract import Part, Section
from latentlm.report.figures.palette import color


def render(title: str, sections: Sequence[Section]) -> str:
    """HTML of sections that have parts; all text is escaped by the template."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise ValueError("jinja2 is missing: pip install 'latentlm[report]'") from None
    pages = Environment(
        loader=PackageLoader("latentlm.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    pages.filters |= {"kind": _kind, "base64": _base64, "color": color, "anchor": _anchor}
    return pages.get_template("page.html").render(title=title, sections=[each for each in sections if each.parts])


def _kind(part: Part) -> str:
    return type(part).__name__


def _base64(png: bytes) -> str:
    return base64.b64encode(png).decode("ascii")


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
