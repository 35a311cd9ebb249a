"""Parents and children out of a file of the user's own: what a pretrained model already knows, from both sides."""

import itertools
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from latentlm.data.documents import Document
from latentlm.data.files import read_rows
from latentlm.data.questions import Question, Split

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

    The first two rows are the examples of every prompt; what they answer is not asked. A parent is asked about once:
    the answer is the first child in the file, `also` are the brothers and sisters, which never rank as wrong.

    Source:    Berglund et al. 2023, arXiv:2309.12288, experiment 2 (their pairs are living people and are not shipped;
               the columns are those of their file). Differs: four examples instead of six, taken from the file; one
               question a parent instead of one a pair.
    Checked:   tests/data/facts/test_published_sets.py - both questions of every pair, no right answer ranked as a
               wrong one.

    Args:
        file: .csv, .jsonl or .json with the columns child, parent and parent_type (mother or father).
    """

    file: str

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return ()

    def documents(self) -> list[Document]:
        """There is nothing to train on."""
        raise ValueError("data: parent_child only asks; train on another part, and score it with suite=parent_child")

    def questions(self) -> list[Question]:
        """The parent, which models mostly know (`same`), and the child, which they mostly do not (`reverse`)."""
        first, second, *asked = self._pairs()
        shots = _SHOTS.format(*(pair[k] for pair in (first, second) for k in (1, 0, 2)))
        answers: dict[tuple[Split, str, str], dict[str, str]] = {}  # of a question: right answer -> fact
        for child, parent, kind in asked:
            fact = f"{child} | {parent}"
            answers.setdefault(("same", kind, f"Who is {child}'s {kind}?"), {})[f" {parent}"] = fact
            answers.setdefault(("reverse", "child", f"Name a child of {parent}."), {})[f" {child}"] = fact
        questions, pools = [], defaultdict(list)
        for (split, answer_type, question), right in answers.items():
            if f"Q: {question}\n" not in shots:
                (answer, *also), fact = right, next(iter(right.values()))
                pool, prompt = _pool(f"parent_child/{answer_type}", list(right), pools), f"{shots}Q: {question}\nA:"
                questions.append(
                    Question("parent_child", split, prompt, answer, fact, answer_type, pool, aliases=tuple(also))
                )
        return questions

    def _pairs(self) -> list[list[str]]:
        if not Path(self.file).is_file():
            raise ValueError(f"file: there is no file {self.file}; check the path")
        keys = ("child", "parent", "parent_type")
        pairs = [[row[key].strip() for key in keys] for row in read_rows(Path(self.file), keys)]
        if len(pairs) < 4:
            raise ValueError(f"file: {self.file} has {len(pairs)} rows; give 2 for the examples and 2 or more to ask")
        for number, pair in enumerate(pairs, start=1):
            if "" in pair:
                raise ValueError(f"file: {self.file} has no {keys[pair.index('')]} in pair {number}; fill it in")
        return pairs


def _pool(name: str, right: list[str], pools: dict[str, list[list[str]]]) -> str:
    """The first pool of this name where no question's other right answers are ranked, and they are kept apart.

    Half-siblings need a second one: the child of one parent is another's second child.
    """
    names = (name if number == 1 else f"{name}/{number}" for number in itertools.count(1))
    pool = next(
        pool
        for pool in names
        if not any(a[0] != b[0] and a[0] in b for other in pools[pool] for a, b in ((right, other), (other, right)))
    )
    pools[pool].append(right)
    return pool
