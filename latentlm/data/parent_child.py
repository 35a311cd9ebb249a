"""Parents and children out of a file of the user's own: what a pretrained model already knows, from both sides."""

from dataclasses import dataclass
from pathlib import Path

from latentlm.data.items import Item
from latentlm.data.rows import read_rows

_SHOTS = """Below is a conversation between a helpful and terse assistant and a user. Answer with a name.

Q: Name a child of {0}.
A: {1}
Q: Who is {1}'s {2}?
A: {0}
Q: Name a child of {3}.
A: {4}
Q: Who is {4}'s {5}?
A: {3}

"""


@dataclass(frozen=True)
class ParentChild:
    """``Who is X's mother?`` against ``Name a child of Y.``, after examples out of the file itself. Nothing is trained.

    The first two rows are the examples of every prompt and are not asked.

    Source:    Berglund et al. 2023, arXiv:2309.12288, experiment 2 (their pairs are living people and are not shipped;
               the columns are those of their file). Differs: four examples instead of six, taken from the file.
    Checked:   tests/test_data_published.py - both questions of every row, examples never asked.

    Args:
        file: .csv, .jsonl or .json with the columns child, parent and parent_type (mother or father).
    """

    file: str

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return ()

    def documents(self) -> list[dict]:
        """There is nothing to train on."""
        raise ValueError("data: parent_child only asks; train on another part, and name this one with --suite")

    def items(self) -> list[Item]:
        """The parent, which models mostly know (`same`), and the child, which they mostly do not (`reverse`)."""
        rows = read_rows(Path(self.file), ["child", "parent", "parent_type"])
        if len(rows) < 4:
            raise ValueError(f"file: {self.file} has {len(rows)} rows; give 2 for the examples and 2 or more to ask")
        first, second, *asked = rows
        shots = _SHOTS.format(*(row[key] for row in (first, second) for key in ("parent", "child", "parent_type")))
        items = []
        for row in asked:
            child, parent, kind = (row[key].strip() for key in ("child", "parent", "parent_type"))
            fact = f"{child} | {parent}"
            down, up = f"{shots}Q: Name a child of {parent}.\nA:", f"{shots}Q: Who is {child}'s {kind}?\nA:"
            items.append(Item("parent_child", "same", up, f" {parent}", fact, kind, f"parent_child/{kind}"))
            items.append(Item("parent_child", "reverse", down, f" {child}", fact, "child", "parent_child/child"))
        return items
