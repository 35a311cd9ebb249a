"""Invented people in conversations or in prose: texts with turns, sentences and paragraphs, to try methods on them."""

from dataclasses import dataclass
from typing import Literal

from latentlm.data.documents import Document, conversation
from latentlm.data.questions import Question
from latentlm.data.synthetic.words import check, invent, names, stream

_JOBS = ("baker", "pilot", "nurse", "farmer", "painter", "teacher", "sailor", "judge")
_PLACES = ("north", "south", "east", "west")
_TOOLS = ("lamp", "drum", "boat", "kite", "clock", "ladder", "basket", "mirror")
_HABITS = ("reads", "sings", "walks", "cooks", "swims", "paints")
_TIMES = ("in the morning", "at noon", "in the evening", "at night")
_PEOPLE = (  # a question about somebody, and what is answered
    ("Who is {name}?", "{name} is a {job}. The town is {town}."),
    ("Where does {name} live?", "In {town}, in the {place}. It is a quiet town."),
    ("What does {name} own?", "A {tool}. It comes from {town}."),
    ("What does {name} do {time}?", "{name} {habit} {time}. Then the work of a {job} begins."),
)
_PARAGRAPHS = (
    "{name} is a {job}. {name} lives in {town}, in the {place}. It is a quiet town.",
    "Every day {name} {habit} {time}. Then the work of a {job} begins. The {tool} stands by the door.",
    "The {tool} comes from {town}. Nobody else in the {place} has one. {name} never sells it.",
)


@dataclass(frozen=True)
class People:
    """Conversations or prose about invented people, each with a job, a town, a habit and a thing.

    Checked:   tests/data/facts/test_people.py - every text has the units that it is for; the same in all processes.

    Args:
        num: people, one text each.
        form: ``chat``: two to four questions with their answers; ``prose``: three paragraphs of three sentences.
        seed: another seed gives other people.
    """

    num: int = 400
    form: Literal["chat", "prose"] = "chat"
    seed: int = 0

    def __post_init__(self) -> None:
        check(2, num=self.num)

    @property
    def sets(self) -> tuple[str, ...]:
        """It marks no spans."""
        return ()

    def documents(self) -> list[Document]:
        """One for each person."""
        found = names(invent(stream(self, "names"), 2 * self.num), 2)
        towns = names(invent(stream(self, "towns"), self.num), 1)
        rng, documents = stream(self, "people"), []
        for name, town in zip(found, towns, strict=True):
            about = {"name": name, "town": town, "job": rng.choice(_JOBS), "place": rng.choice(_PLACES)}
            about |= {"tool": rng.choice(_TOOLS), "habit": rng.choice(_HABITS), "time": rng.choice(_TIMES)}
            if self.form == "prose":
                documents.append(Document("\n\n".join(text.format(**about) for text in _PARAGRAPHS)))
                continue
            asked = rng.sample(_PEOPLE, rng.randint(2, len(_PEOPLE)))
            messages = [
                {"role": role, "content": text.format(**about)}
                for question, answer in asked
                for role, text in (("user", question), ("assistant", answer))
            ]
            documents.append(conversation(messages))
        return documents

    def questions(self) -> list[Question]:
        """It asks nothing."""
        return []
