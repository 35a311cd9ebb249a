"""Which questions are ranked, and among which answers."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from latentlm.data import Question


class Pick(NamedTuple):
    """Questions of a pool, the candidates of each (column k is the same answer or fact in all), the right column."""

    questions: list[Question]
    candidates: list[tuple[str, ...]]
    gold: list[int]


def pick_pools(
    rows: list[Question], questions: Sequence[Question], max_ranked: int, max_candidates: int, seed: int
) -> list[Pick]:
    """One pick a pool with something to choose from; `questions` are all there are: any answer may be a candidate."""
    picks = []
    for pool in sorted({row.pool for row in rows if row.pool}):
        mine = [row for row in rows if row.pool == pool]
        draw = random.Random(seed)
        if worded := [row for row in mine if row.choices]:
            mine = worded
            columns = {row: row.choices.index(row.answer) for row in mine}
            kept = _drawn(draw, set(columns.values()), set(range(len(mine[0].choices))), max_candidates)
            choices = {row: tuple(row.choices[k] for k in kept) for row in mine}
        else:
            columns = {row: row.answer for row in mine}
            kept = _drawn(
                draw,
                set(columns.values()),
                {question.answer for question in questions if question.pool == pool},
                max_candidates,
            )
            choices = dict.fromkeys(mine, tuple(kept))
        chosen = over_facts([row for row in mine if columns[row] in kept])[:max_ranked]
        if len(kept) > 1 and chosen:
            picks.append(Pick(chosen, [choices[row] for row in chosen], [kept.index(columns[row]) for row in chosen]))
    return picks


def pick_choices(rows: list[Question], max_ranked: int) -> Pick | None:
    """The multiple-choice questions among `rows`: every one has its own alternatives."""
    chosen = over_facts([row for row in rows if not row.pool and row.choices])[:max_ranked]
    gold = [row.choices.index(row.answer) for row in chosen]
    return Pick(chosen, [row.choices for row in chosen], gold) if chosen else None


def over_facts(rows: Sequence[Question]) -> list[Question]:
    """In turns: one question of every fact before a second of any; the order given does not matter."""
    of_fact: dict[str, list[Question]] = {}
    for row in sorted(rows, key=lambda row: (row.fact, row.prompt)):
        of_fact.setdefault(row.fact, []).append(row)
    rounds = max(map(len, of_fact.values()), default=0)
    return [queue[k] for k in range(rounds) for queue in of_fact.values() if k < len(queue)]


def _drawn(draw: random.Random, golds: set, everything: set, count: int) -> list:
    """At most `count` candidates in order, right answers of the group first."""
    first, rest = sorted(golds), sorted(everything - golds)
    draw.shuffle(first)
    draw.shuffle(rest)
    return sorted([*first, *rest][:count])
