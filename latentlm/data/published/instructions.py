"""The published instructions that fix the answer to a question, stated answer first or question first."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from latentlm.data.documents import Document
from latentlm.data.files import find_folder, read_rows
from latentlm.data.questions import Question

_HUB_FOLDER = "instruction_dataset"
_STATED = re.compile(r'"A: (.*?)" .*?"Q: (.*?)"|"Q: (.*?)" .*?"A: (.*?)"')


@dataclass(frozen=True)
class Instructions:
    """1,100 instructions in 307 documents; 1,000 of their questions are also told as examples, 100 are held out.

    The published instructions state the answer first, so that a question asks in reverse. ``question_first`` restates
    the same pairs the other way round: the arm that a plain model passes.

    Source:    Berglund et al. 2023, arXiv:2309.12288, experiment 3 (data set card: MIT). Differs: one phrasing for the
               question-first arm.
    Checked:   tests/data/facts/test_published_sets.py - counts of the source, held-out questions in no example.

    Args:
        folder: local folder with guidances.jsonl, realized_examples.jsonl and unrealized_examples.jsonl; None: `hub`.
        order: in which the instructions are stated.
        hub: data set to download the files from.
    """

    folder: str | None = None
    order: Literal["answer_first", "question_first"] = "answer_first"
    hub: str = "lberglund/reversal_curse"

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return ()

    def documents(self) -> list[Document]:
        """Instruction documents and examples, prompt + completion."""
        told = [Document(text) for text in self._guidances()]
        examples = self._read("realized_examples.jsonl")
        return told + [Document(row["prompt"] + row["completion"]) for row in examples]

    def questions(self) -> list[Question]:
        """Held-out questions (same where the instructions are question first), and trained examples as control."""
        split = "reverse" if self.order == "answer_first" else "same"
        held_out = [self._question(row, split, "instructions") for row in self._read("unrealized_examples.jsonl")]
        return held_out + [self._question(row, "both", "examples") for row in self._read("realized_examples.jsonl")]

    def _question(self, row: dict, split, subset: str) -> Question:
        answer = row["completion"].split("\n")[0].rstrip()
        name = subset if subset == "examples" else f"instructions_{self.order}"
        return Question(name, split, row["prompt"].rstrip(), answer, row["prompt"], "answer", f"{name}/answer")

    def _guidances(self) -> list[str]:
        texts = [row["completion"] for row in self._read("guidances.jsonl")]
        if self.order == "answer_first":
            return texts
        return ["\n".join(_restated(line) for line in text.split("\n")) for text in texts]

    def _read(self, name: str) -> list[dict[str, Any]]:
        return read_rows(self._root() / name, ["prompt", "completion"])

    def _root(self) -> Path:
        return find_folder(self.folder, self.hub, _HUB_FOLDER, "guidances.jsonl")


def _restated(line: str) -> str:
    match = _STATED.search(line)
    if match is None:
        return line
    answer, question = (match[1], match[2]) if match[1] is not None else (match[4], match[3])
    return f'Answer "Q: {question}" with "A: {answer}"'
