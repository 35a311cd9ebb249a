"""What a task of this evaluation is: a subset of the facts, the direction they are asked in, and what is asked for."""

from typing import NamedTuple

from latentlm.result import Result, Task, TaskKey

NAME = "reversal"
SPLITS = ("same", "reverse", "both", "composition", "shortcut", "non_reciprocal")
ERRORS = ("shortcut", "non_reciprocal")  # here the "answer" is a mistake, and lower is better
STATED = ("same", "reverse")  # directions of a fact that one statement tells
IN_CONTEXT = "_in_context"  # after the split: the statement of the fact is before the question
ALL_SPLITS = (*SPLITS, *(split + IN_CONTEXT for split in STATED))
LEARNED = 0.9  # below this same-direction score the fact was not learned, and its reverse says nothing
NEEDED = ("exact", "contains")  # what every task of this evaluation has


class Group(NamedTuple):
    """Questions that are scored together."""

    subset: str
    split: str
    answer_type: str

    @property
    def key(self) -> TaskKey:
        """Its task."""
        return TaskKey.parse("/".join((NAME, *self)))

    @property
    def order(self) -> tuple[str, int, str]:
        """Sorts a subset's trained direction before the reverse one."""
        place = ALL_SPLITS.index(self.split) if self.split in ALL_SPLITS else len(ALL_SPLITS)
        return self.subset, place, self.answer_type


def groups_of(result: Result) -> dict[Group, Task]:
    """The tasks that this evaluation has scored, in order."""
    found = {}
    for key, task in result.tasks.items():
        if key.evaluation == NAME and len(key.parts) >= 3 and task.has(*NEEDED) and task.scores["exact"].interval:
            *subset, split, answer_type = key.parts
            found[Group("/".join(subset), split, answer_type)] = task
    return dict(sorted(found.items(), key=lambda each: each[0].order))
