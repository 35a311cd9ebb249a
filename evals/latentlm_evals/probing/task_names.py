"""Tasks of this evaluation: a property at a depth, or at the depth that the other folds chose."""

from dataclasses import dataclass

from latentlm.result import Estimate, Result, Task, TaskKey

NAME = "probe"
CHOSEN = "chosen"


def task_key(name: str, where: str) -> TaskKey:
    """Task of a property; `where` is a depth or `CHOSEN`."""
    return TaskKey.parse(f"{NAME}/{name}/{where}")


@dataclass(frozen=True)
class Profile:
    """What was read off the states for one property: at each depth, and at the depth that other inputs chose."""

    name: str
    depths: dict[int, Task]
    chosen: Task

    def best(self) -> int:
        """Depth with the highest accuracy, the shallowest of several."""
        return max(self.depths, key=lambda depth: self.depths[depth].value("acc"))

    def gain(self) -> list[float]:
        """Accuracy over depth, 0 at the share of the largest class and 1 where all is right."""
        pairs = [(task.value("acc"), task.value("chance")) for task in self.depths.values()]
        return [max(0.0, (accuracy - chance) / (1 - chance)) for accuracy, chance in pairs]


def profiles(result: Result) -> dict[str, Profile]:
    """Every property with its depths in order, if it has a score at some depth."""
    found: dict[str, dict[str, Task]] = {}
    for key, task in result.tasks.items():
        accuracy = task.scores.get("acc", Estimate(float("nan")))
        if key.evaluation == NAME and len(key.parts) >= 2 and task.has("acc", "chance") and accuracy.interval:
            *name, where = key.parts
            if where == CHOSEN or where.isdigit():
                found.setdefault("/".join(name), {})[where] = task
    return {
        name: Profile(
            name,
            {int(where): tasks[where] for where in sorted(tasks.keys() - {CHOSEN}, key=int)},
            tasks.get(CHOSEN, Task({})),
        )
        for name, tasks in found.items()
        if tasks.keys() - {CHOSEN}
    }
