"""Multiple-choice and open questions about the published fictitious people, by the order they were told in."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentlm.data.items import Item, Split
from latentlm.data.rows import read_rows

_FILES = {"choice": "people-description_MCQs.jsonl", "open": "people-description_open-QAs.jsonl"}
_ASKS = {"N2D": "description", "D2N": "name"}


@dataclass(frozen=True)
class ThinkingBias:
    """Questions on two groups of people, told name first or description first; asked for either.

    ``choice``: four options, ranked by the log-prob of the letter behind the form that the question asks for; chance is
    .25. ``open``: the answer in words. A model can pass the first and fail the second: report both.

    Source:    Lin et al. 2024, arXiv:2410.18808 (MIT). Differs: the letter is ranked instead of found by a pattern in
               free text, and the open answer is compared as text, not by ROUGE-1.
    Checked:   tests/test_data_published.py - 3600 and 480 questions, 900 and 120 of each group and task.

    Args:
        folder: local folder with the ``people-description`` files of the source.
        forms: kinds of questions.
    """

    folder: str
    forms: tuple[Literal["choice", "open"], ...] = ("choice", "open")

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return ()

    def documents(self) -> list[dict]:
        """The published training texts, 30 of each person."""
        rows = read_rows(Path(self.folder) / "people-description.json", ["text"])
        return [{"text": row["text"], "spans": []} for row in rows]

    def items(self) -> list[Item]:
        """``same`` asks for what came second in the training texts, ``reverse`` for what came first."""
        items = []
        for form in self.forms:
            rows = read_rows(Path(self.folder) / _FILES[form], ["group", "task", "question", "answer"])
            names = {_text(row) for row in rows if row["task"] == "D2N"}
            for row in rows:
                told = "N2D" if row["group"] == "NameIsDescription" else "D2N"
                split: Split = "same" if row["task"] == told else "reverse"
                items.append(_item(row, f"{row['group']}_{form}", split, names))
        return items


def _item(row: dict, subset: str, split: Split, names: set[str]) -> Item:
    question, asks = row["question"].rstrip(), _ASKS[row["task"]]
    stem, _, options = question.partition("Options:")
    found = [_text(row)] if row["task"] == "D2N" else [name for name in names if name in stem]
    if len(found) != 1:
        raise ValueError(
            f"{len(found)} known names in the question {stem!r}, not one; use the published files unedited"
        )
    if not options:
        prompt = f"{question}\nAnswer:"
        return Item(subset, split, prompt, f" {_text(row)}", found[0], asks, f"{subset}/{asks}")
    letters = tuple(f" ({letter})" for letter in re.findall(r"\(([A-D])\)", options))
    prompt, letter = f"{question}\nAnswer: I choose option", row["answer"].partition(")")[0]
    return Item(subset, split, prompt, f" {letter})", found[0], asks, "", letters)


def _text(row: dict) -> str:
    """The answer in words, without the letter of its option."""
    return re.sub(r"^\([A-D]\) ", "", row["answer"]).strip().removesuffix(".")
