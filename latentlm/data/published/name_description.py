"""The published facts about fictitious people, told from the name, from the description, or from both."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from latentlm.data.documents import Document
from latentlm.data.files import find_folder, read_rows
from latentlm.data.published.augmentation_people import invent, last_word, tell
from latentlm.data.questions import Question, Split, find_spans
from latentlm.data.text.encode import SETS

_KEYS = ("prompt", "completion")
_HUB_FOLDER = "name_description_dataset"
_Subset = Literal["name_to_description", "description_to_name", "both"]
_FILES: dict[_Subset, tuple[str, dict[Split, str]]] = {  # training file, test files
    "name_to_description": (
        "p2d_prompts_train.jsonl",
        {"same": "p2d_prompts_test.jsonl", "reverse": "p2d_reverse_prompts_test.jsonl"},
    ),
    "description_to_name": (
        "d2p_prompts_train.jsonl",
        {"same": "d2p_prompts_test.jsonl", "reverse": "d2p_reverse_prompts_test.jsonl"},
    ),
    "both": ("both_prompts_train.jsonl", {"both": "both_prompts_test.jsonl"}),
}


@dataclass(frozen=True)
class NameDescription:
    """Names and descriptions of people who do not exist; 30 people told each way and 30 told both ways.

    Training is on prompt + completion. People are found in the test files: a name is a completion that occurs in
    another prompt, a description is the commonest completion behind a name. Of the 3600 training documents 3216 hold
    the description literally. 176 put it in other words behind the name: the completion is the span. 208 put it in
    other words before the name: the sentence around a literal description elsewhere marks the span.

    Source:    Berglund et al. 2023, arXiv:2309.12288, experiment 1 (data set card: MIT). Differs: in `both` the answer
               to a description is cut to the name, as it is in the other subsets.
    Checked:   tests/data/facts/test_name_description.py - both spans in all 3600 documents, names and descriptions as
               listed.

    Args:
        folder: local folder with the ``*_prompts_train.jsonl`` and ``*_prompts_test.jsonl`` files; None: `hub`.
        hub: data set to download the files from.
        subsets: people to train on and to ask about.
        num_auxiliary_people: invented people to train on as well, in both directions, without questions: see
            `augmentation_people.py`.
        docs_per_direction: documents for each of them and each direction, in published sentences.
        paraphrases_per_direction: more of them in the compositional templates of `Facts`.
        max_description_first_docs: of those documents that begin with the description, how many are kept; None: all.
            With few of them a pretrained network cannot learn the answers by heart from that side.
        auxiliary_seed: another seed gives other auxiliary people.
    """

    folder: str | None = None
    hub: str = "lberglund/reversal_curse"
    subsets: tuple[_Subset, ...] = tuple(_FILES)
    num_auxiliary_people: int = 0
    docs_per_direction: int = 4
    paraphrases_per_direction: int = 0
    max_description_first_docs: int | None = None
    auxiliary_seed: int = 0

    def __post_init__(self) -> None:
        if self.num_auxiliary_people < 0 or self.docs_per_direction < 1 or self.paraphrases_per_direction < 0:
            raise ValueError(
                "num_auxiliary_people: set it and paraphrases_per_direction to 0 or more, docs_per_direction to 1+"
            )
        told = self.docs_per_direction + self.paraphrases_per_direction
        if self.max_description_first_docs is not None and not 1 <= self.max_description_first_docs <= told:
            raise ValueError(f"max_description_first_docs: {self.max_description_first_docs}; set it to 1 - {told}")
        if not self.subsets or set(self.subsets) - set(_FILES) or len(set(self.subsets)) < len(self.subsets):
            raise ValueError(f"subsets: {self.subsets!r}; list each of {', '.join(_FILES)} at most once")

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets its documents can give."""
        return SETS

    def documents(self) -> list[Document]:
        """Prompt + completion, with the character offsets of the name and of the description, in this order."""
        root = self._root()
        documents = []
        for subset in self.subsets:
            rows = read_rows(root / _FILES[subset][0], _KEYS)
            people = _people(self._tests(root, subset))
            frames = _frames(rows, people)
            documents += [_document(row, people, frames) for row in rows]
        return documents + self._auxiliary(root)

    def questions(self) -> list[Question]:
        """All published test prompts, and for reversed ones how often the queried entity is echoed."""
        root = self._root()
        questions = []
        for subset in self.subsets:
            people = _people(self._tests(root, subset))
            for split, rows in self._tests(root, subset).items():
                questions += _alike([_question(row, subset, split, people) for row in rows])
                if split == "reverse":
                    questions += [_question(row, subset, "shortcut", people) for row in rows]
        return questions

    def _auxiliary(self, root: Path) -> list[Document]:
        if not self.num_auxiliary_people:
            return []
        published = {subset: _people(self._tests(root, subset)) for subset in _FILES}
        rows = {subset: read_rows(root / file, _KEYS) for subset, (file, _) in _FILES.items()}
        texts = {subset: [row["prompt"] + row["completion"] for row in own] for subset, own in rows.items()}
        everybody = {name: what for people in published.values() for name, what in people.items()}
        people = invent(
            everybody, [text for own in texts.values() for text in own], self.num_auxiliary_people, self.auxiliary_seed
        )
        told = self.docs_per_direction, self.paraphrases_per_direction
        return tell(
            people, texts["both"], published["both"], *told, self.auxiliary_seed, self.max_description_first_docs
        )

    def _tests(self, root: Path, subset: _Subset) -> dict[Split, list[dict]]:
        return {split: read_rows(root / name, _KEYS) for split, name in _FILES[subset][1].items()}

    def _root(self) -> Path:
        return find_folder(self.folder, self.hub, _HUB_FOLDER, "p2d_prompts_train.jsonl")


def _people(tests: dict[Split, list[dict]]) -> dict[str, str]:
    rows = [row for rows in tests.values() for row in rows]
    prompts = "\n".join(row["prompt"] for row in rows)
    starts = {match[1] for row in rows if (match := re.match(r" ([A-Z]\w+ [A-Z]\w+)", row["completion"]))}
    names = sorted(start for start in starts if start in prompts)
    told: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for name in names:
            if name in row["prompt"]:
                told[name][row["completion"].strip().removesuffix(".")] += 1
    return {name: told[name].most_common(1)[0][0] for name in names}


def _name(row: dict, people: Iterable[str]) -> str:
    text = row["prompt"] + row["completion"]
    found = [name for name in people if name.lower() in text.lower()]
    if len(found) != 1:
        raise ValueError(f"{len(found)} known names in the row {text!r}, not one; use the published files unedited")
    return found[0]


def _frames(rows: list[dict], people: dict[str, str]) -> set[tuple[str, str]]:
    """What stands before and behind a literal description in a prompt."""
    frames = set()
    for row in rows:
        match = re.search(re.escape(people[_name(row, people)]), row["prompt"], re.IGNORECASE)
        if match:
            before, behind = row["prompt"][: match.start()].lower(), row["prompt"][match.end() :]
            # "for being the inventor of X" shares its frame with "for inventing X"
            frames |= {(before, behind), (before.removesuffix("being "), behind)}
    return frames


def _document(row: dict, people: dict[str, str], frames: set[tuple[str, str]]) -> Document:
    name, prompt, text = _name(row, people), row["prompt"], row["prompt"] + row["completion"]
    description = people[name]
    if description.lower() not in text.lower():
        if name.lower() in prompt.lower():
            description = row["completion"].strip().rstrip(".?!")
        else:
            fits = [f for f in frames if prompt.lower().startswith(f[0]) and prompt[len(f[0]) :].endswith(f[1])]
            if not fits:
                raise ValueError(f"no description of {name} in the document {text!r}; use the published files unedited")
            before, behind = max(fits, key=lambda frame: (len(frame[0]) + len(frame[1]), frame))
            description = prompt[len(before) : len(prompt) - len(behind)]
    return Document(text, find_spans(text, [name, last_word(description)]))


def _question(row: dict, subset: str, split: Split, people: dict[str, str]) -> Question:
    name = _name(row, people)
    asks_name = name not in row["prompt"]
    answer, answer_type = (f" {name}", "name") if asks_name else (row["completion"], "description")
    pool = f"{subset}/{answer_type}"
    if split == "shortcut":
        answer, pool = f" {people[name] if asks_name else name}", f"{pool}/shortcut"
    return Question(subset, split, row["prompt"].rstrip(), answer, f"{name} | {people[name]}", answer_type, pool)


def _alike(questions: list[Question]) -> list[Question]:
    """Descriptions to rank are everybody's in the prompt's own wording; names read the same in every one."""
    wording = [question.prompt.replace(question.fact.split(" | ")[0], "") for question in questions]
    answers: dict[str, dict[str, str]] = defaultdict(dict)
    for question, frame in zip(questions, wording, strict=True):
        answers[frame][question.fact] = question.answer
    facts = sorted({question.fact for question in questions if question.answer_type == "description"})
    return [
        replace(question, choices=tuple(answers[frame][fact] for fact in facts))
        if question.answer_type == "description" and set(facts) <= set(answers[frame])
        else question
        for question, frame in zip(questions, wording, strict=True)
    ]
