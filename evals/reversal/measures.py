"""Numbers from answers: ranks inside a pool, the permutation null over entities, the bootstrap over facts.

Letters: ``i`` items, ``c`` candidate answers, ``e`` entities that are the right answer of some item.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Block = tuple[Tensor, Tensor]  # log-probs [i c] of one pool, and the column of the right answer [i]


def centre(scores: Tensor) -> Tensor:
    """Remove each candidate's own mean log-prob, so that a generally likely (or short) answer gains nothing by it.

    The mean runs over all items, right or wrong: under the null every column of a row is then alike.
    """
    return scores - scores.mean(0, keepdim=True)


def gold_ranks(scores: Tensor, gold: Tensor) -> Tensor:
    """1 = the right answer is on top; ties share the middle of their ranks, so a constant model is at chance."""
    own = scores.gather(1, gold[:, None])
    above = (scores > own).sum(1)
    level = (scores == own).sum(1) - 1
    return 1 + above.double() + level / 2


def chance_mrr(num_candidates: int) -> float:
    """Mean reciprocal rank of a blind guess."""
    return sum(1 / rank for rank in range(1, num_candidates + 1)) / num_candidates


def delta_logp(scores: Tensor, gold: Tensor) -> Tensor:
    """Log P(gold) - mean log P(others), one value per item."""
    return _deltas(scores).gather(1, gold[:, None])[:, 0]


def permutation_test(blocks: Sequence[Block], *, seed: int = 0, rounds: int = 2000) -> tuple[float, float] | None:
    """Is the mean delta of log-probs larger than when the entities swap answers? One-sided p and sd of the null.

    All items of an entity get the same wrong answer in a round (never item by item: templates of a fact are not
    independent), and answers are swapped inside a pool only. None where no pool has two entities.
    """
    draw = torch.Generator().manual_seed(seed)
    observed, null, items = 0.0, torch.zeros(rounds, dtype=torch.float64), 0
    for scores, gold in blocks:
        deltas = _deltas(scores)
        entities, of_item = gold.unique(return_inverse=True)
        if len(entities) < 2:
            continue
        table = torch.zeros(len(entities), scores.shape[1], dtype=torch.float64).index_add_(0, of_item, deltas)
        table = table[:, entities]  # e e: the total delta of a row's items if the column were their answer
        shuffles = torch.rand(rounds, len(entities), generator=draw).argsort(1)
        null += table.gather(1, shuffles.T).sum(0)
        observed += float(table.diagonal().sum())
        items += len(gold)
    if items == 0:
        return None
    # rounding may part two equal sums by a few ulp, so "at least as large" needs a hair of slack
    slack = 1e-9 * (1 + abs(observed))
    return (1 + int((null >= observed - slack).sum())) / (1 + rounds), float(null.std()) / items


def bootstrap(values: Tensor, facts: Sequence[str], *, seed: int = 0, rounds: int = 2000) -> tuple[float, float, float]:
    """Standard error and 95 % interval of a mean of zeros and ones, drawing whole facts with all their items.

    Where every item scores alike the draws have no width; the bound is then the exact binomial one over facts,
    so 0 of 30 facts reads as 0 to 11.6 %, not as certainty.
    """
    names = {name: k for k, name in enumerate(sorted(set(facts)))}
    of_item = torch.tensor([names[name] for name in facts])
    sums = torch.zeros(len(names), dtype=torch.float64).index_add_(0, of_item, values.double())
    counts = torch.bincount(of_item, minlength=len(names)).double()
    draw = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(names), (rounds, len(names)), generator=draw)
    means = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = (float(torch.quantile(means, q)) for q in (0.025, 0.975))
    edge = 0.025 ** (1 / len(names))
    if bool((values == 0).all()):
        high = 1 - edge
    elif bool((values == 1).all()):
        low = edge
    return float(means.std()), low, high


def _deltas(scores: Tensor) -> Tensor:
    """Log P(c) - mean log P(all but c), for every candidate c as if it were the right one."""
    num = scores.shape[1]
    return (num * scores - scores.sum(1, keepdim=True)) / (num - 1)
