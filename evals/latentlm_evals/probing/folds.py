"""Who is tested by whom: folds that share neither entity nor template, and labels that only a memory could tell."""

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np

from latentlm_evals.probing.properties import Property
from latentlm_evals.statistics.folds import Fold, cross_folds

FOLDS = 4
LEAST = 8  # training inputs of a fold


def folds(each: Property, seed: int) -> list[Fold]:
    """Every input is tested once, by a probe that was fitted on neither its entity nor its template.

    Entities are dealt into four groups, templates into two halves; with a single template only entities are held out.
    """
    rng = random.Random(f"probing/{seed}/{each.name}/folds")
    entity, template = _deal(each.entities, FOLDS, rng), _deal(each.templates, 2, rng)
    only = len(set(template)) == 1
    found = []
    for e in range(FOLDS):
        for t in sorted(set(template)):
            test = [i for i, place in enumerate(zip(entity, template, strict=True)) if place == (e, t)]
            train = [i for i in range(len(entity)) if entity[i] != e and (only or template[i] != t)]
            if test:
                found.append((np.array(train, int), np.array(test, int)))
    return found


def shared_folds(count: int, rng: random.Random) -> list[Fold]:
    """Inputs dealt at random: training and test share entities and templates."""
    return cross_folds(rng.sample(range(count), count), FOLDS)


def control(each: Property, rng: random.Random) -> list[int] | None:
    """Labels drawn at random for each entity, as often as the true ones; None where no entity comes back.

    Source: Hewitt & Liang 2019, arXiv:1909.03368.
    """
    count = Counter(each.entities)
    if len(count) == len(each.entities):
        return None
    # dealt from the sorted labels: drawn one by one, few entities would give the control another largest class
    names, ordered, start, drawn = rng.sample(sorted(count), len(count)), sorted(each.labels), 0, {}
    for name in names:
        drawn[name] = ordered[start + count[name] // 2]
        start += count[name]
    return [drawn[name] for name in each.entities]


def unusable(each: Property, parts: Sequence[Fold]) -> str | None:
    """Why nothing can be said about a property, if so."""
    if len(set(each.labels)) < 2:
        return f"{each.name}: left out, its {len(each.labels)} inputs are of one class"
    if (count := len(set(each.entities))) < FOLDS:
        return f"{each.name}: left out, {count} entities are too few to hold some out; give {FOLDS} or more"
    if (count := min(len(train) for train, _ in parts)) < LEAST:
        return f"{each.name}: left out, {count} training inputs of a fold are too few; raise limit"
    if any(len({each.labels[i] for i in train}) < 2 for train, _ in parts):
        return f"{each.name}: left out, the training inputs of a fold are of one class; raise limit"
    return None


def unseen(each: Property, parts: Sequence[Fold]) -> str | None:
    """What no probe can get right, because its class is in no training input of the fold."""
    missing = sum(
        each.labels[i] not in seen for train, test in parts for seen in [{each.labels[k] for k in train}] for i in test
    )
    if not missing:
        return None
    return f"{each.name}: {missing} of {len(each.labels)} inputs are of a class without a training input; raise limit"


def _deal(names: Sequence[str], groups: int, rng: random.Random) -> list[int]:
    order = sorted(set(names))
    rng.shuffle(order)
    group = {name: place % groups for place, name in enumerate(order)}
    return [group[name] for name in names]
