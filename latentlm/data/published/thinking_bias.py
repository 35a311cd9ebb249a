"""Multiple-choice and open questions about the published fictitious people, by the order they were told in."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentlm.data.documents import Document
from latentlm.data.files import find_folder, read_rows
from latentlm.data.questions import Question, Split

_FILES = {"choice": "people-description_MCQs.jsonl", "open": "people-description_open-QAs.jsonl"}
_FOLDERS = (".", "data/training_data", "data/test_data")  # of a copy: flat, or as in the repository
_ASKS = {"N2D": "description", "D2N": "name"}


@dataclass(frozen=True)
class ThinkingBias:
    """Questions on two groups of people, told name first or description first; asked for either.

    ``choice``: four options, ranked by the log-prob of the letter behind the form that the question asks for; chance is
    .25. ``open``: the answer in words. A model can pass the first and fail the second: report both.

    Source:    Lin et al. 2024, arXiv:2410.18808 (MIT). Differs: the letter is ranked instead of found by a pattern in
               free text, and the open answer is compared as text, not by ROUGE-1.
    Checked:   tests/data/facts/test_published_sets.py - 3600 and 480 questions, 900 and 120 of each group and task.

    Args:
        folder: local folder with the three ``people-description`` files of the source, or a clone of its repository,
            https://github.com/alibaba/thinking_bias; None: `hub`.
        forms: kinds of questions.
        hub: data set on the hub that holds the same files, such as a copy of your own: the authors publish none there.
    """

    folder: str | None = None
    forms: tuple[Literal["choice", "open"], ...] = ("choice", "open")
    hub: str | None = None

    def __post_init__(self) -> None:
        if self.folder is None and self.hub is None:
            raise ValueError(
                "folder: give a clone of https://github.com/alibaba/thinking_bias, or the name of a copy as hub"
            )

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return ()

    def documents(self) -> list[Document]:
        """The published training texts, 30 of each person."""
        rows = read_rows(self._file("people-description.json"), ["text"])
        return [Document(row["text"]) for row in rows]

    def questions(self) -> list[Question]:
        """``same`` asks for what came second in the training texts, ``reverse`` for what came first."""
        questions = []
        for form in self.forms:
            rows = read_rows(self._file(_FILES[form]), ["group", "task", "question", "answer"])
            names = {_text(row) for row in rows if row["task"] == "D2N"}
            for row in rows:
                told = "N2D" if row["group"] == "NameIsDescription" else "D2N"
                split: Split = "same" if row["task"] == told else "reverse"
                questions.append(_question(row, f"{row['group']}_{form}", split, names))
        return questions

    def _file(self, name: str) -> Path:
        root = find_folder(self.folder, self.hub or "", "", name, "*people-description*")
        return next((file for part in _FOLDERS if (file := root / part / name).is_file()), root / name)


def _question(row: dict, subset: str, split: Split, names: set[str]) -> Question:
    asked, answer_type = row["question"].rstrip(), _ASKS[row["task"]]
    stem, _, options = asked.partition("Options:")
    found = [_text(row)] if row["task"] == "D2N" else [name for name in names if name in stem]
    if len(found) != 1:
        raise ValueError(
            f"{len(found)} known names in the question {stem!r}, not one; use the published files unedited"
        )
    if not options:
        prompt = f"{asked}\nAnswer:"
        return Question(subset, split, prompt, f" {_text(row)}", found[0], answer_type, f"{subset}/{answer_type}")
    letters = tuple(f" ({letter})" for letter in re.findall(r"\(([A-D])\)", options))
    prompt, letter = f"{asked}\nAnswer: I choose option", row["answer"].partition(")")[0]
    return Question(subset, split, prompt, f" {letter})", found[0], answer_type, "", letters)


def _text(row: dict) -> str:
    """The answer in words, without the letter of its option."""
    return re.sub(r"^\([A-D]\) ", "", row["answer"]).strip().removesuffix(".")
