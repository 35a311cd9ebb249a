"""Star graph: a path whose first step can only be found from its end."""

import itertools
import random
from dataclasses import dataclass

from latentlm.data.documents import Document
from latentlm.data.questions import Question
from latentlm.data.synthetic.words import check, invent, stream
from latentlm.data.text.encode import SETS


@dataclass(frozen=True)
class StarGraph:
    """Shuffled edges of a star, its centre and one leaf, then the path between them: ``a b | b c / a c = a b c``.

    Test graphs are new. A model that only looks ahead by one step picks an arm at random: accuracy 1 / `degree`.

    Source:    Bachmann and Nagarajan 2024, arXiv:2403.06963, as in arXiv:2406.05183 (next-token 50 % with two arms).
    Checked:   tests/data/facts/test_synthetic_sets.py - the path is in the edges, the arms are the choices.

    Args:
        degree: arms.
        length: nodes of an arm, the centre not counted.
        num_nodes: words that nodes are drawn from.
        num_graphs: training graphs.
        num_tests: test graphs.
        seed: another seed gives other graphs.
    """

    degree: int = 2
    length: int = 4
    num_nodes: int = 50
    num_graphs: int = 5000
    num_tests: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        check(2, degree=self.degree)
        check(1, length=self.length, num_graphs=self.num_graphs, num_tests=self.num_tests)
        if self.num_nodes < 1 + self.degree * self.length:
            raise ValueError(f"num_nodes: {self.num_nodes}; a graph has {1 + self.degree * self.length} of them")

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return SETS

    def documents(self) -> list[Document]:
        """Graphs with the offsets of the question and of the path."""
        documents = []
        for prompt, arms, right in self._graphs("train", self.num_graphs):
            question = prompt.rindex("/") + 2
            text = f"{prompt} {arms[right]}"
            spans = [(question, len(prompt) - 2), (len(prompt) + 1, len(text))]
            documents.append(Document(text, spans))
        return documents

    def questions(self) -> list[Question]:
        """New graphs; the choices are the paths to all leaves."""
        return [
            Question(
                "star_graph", "same", prompt, f" {arms[right]}", prompt, "path", "", tuple(f" {arm}" for arm in arms)
            )
            for prompt, arms, right in self._graphs("test", self.num_tests)
        ]

    def _graphs(self, name: str, count: int) -> list[tuple[str, list[str], int]]:
        words, rng = invent(stream(self, "words"), self.num_nodes), stream(self, name)
        return [self._graph(rng, words) for _ in range(count)]

    def _graph(self, rng: random.Random, words: list[str]) -> tuple[str, list[str], int]:
        centre, *nodes = rng.sample(words, 1 + self.degree * self.length)
        arms = [[centre, *nodes[k :: self.degree]] for k in range(self.degree)]
        edges = [f"{a} {b}" for arm in arms for a, b in itertools.pairwise(arm)]
        rng.shuffle(edges)
        right = rng.randrange(self.degree)
        return f"{' | '.join(edges)} / {centre} {arms[right][-1]} =", [" ".join(arm) for arm in arms], right
