"""What the docstring of a part says: one line of summary, the equation, the source, and the meaning of every key."""

import dataclasses
import inspect
import re
import textwrap
from dataclasses import dataclass, field
from functools import cache

# the labelled lines of a docstring, in the order in which they are written
LABELS = ("Shapes", "Gradient", "Scale", "Ranks", "Source", "Checked", "See also")


@dataclass(frozen=True)
class Docs:
    """The docstring of a part, taken apart.

    Args:
        summary: the first sentence or two, in one line.
        equation: indented lines, as they are written.
        prose: the other paragraphs, one line each.
        labels: the labelled lines such as Source.
        keys: the meaning of each key, out of `Args`.
    """

    summary: str = ""
    equation: str = ""
    prose: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


@cache
def read_docs(part: type) -> Docs:
    """Take the docstring of a class apart; a key without a line in `Args` has the help text of its field, if any."""
    text, _, args = inspect.cleandoc(part.__doc__ or "").partition("\nArgs:\n")
    keys = {f.name: one_line(f.metadata["help"]) for f in dataclasses.fields(part) if f.metadata.get("help")}
    keys |= _keys(args)
    equations, prose, labels = [], [], {}
    summary, *paragraphs = re.split(r"\n\s*\n", text.strip())
    for paragraph in paragraphs:
        if paragraph.startswith("    "):
            equations.append(textwrap.dedent(paragraph))
        elif re.match(rf"({'|'.join(LABELS)}):", paragraph):
            entries = re.split(rf"^({'|'.join(LABELS)}):", paragraph, flags=re.MULTILINE)[1:]
            labels |= {name: one_line(entry) for name, entry in zip(entries[::2], entries[1::2], strict=True)}
        elif not paragraph.startswith(">>>"):
            prose.append(one_line(paragraph))
    return Docs(one_line(summary), "\n".join(equations), tuple(prose), labels, keys)


def _keys(args: str) -> dict[str, str]:
    """Key -> its text; ``a, b: text`` documents both."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?!  )", textwrap.dedent(args).strip()):
        names, _, text = entry.partition(":")
        found |= {name.strip(): one_line(text) for name in names.split(",") if name.strip()}
    return found


def one_line(text: str) -> str:
    """The text without line breaks and the double backticks of docstrings."""
    return " ".join(text.replace("``", "`").split())
