"""Parts of a list that is held out one after the other."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from latentlm_evals.statistics.arrays import Labels

Fold = tuple[Labels, Labels]  # indices of the training and of the test rows


def cross_folds(order: Sequence[Any] | Labels, parts: int) -> list[Fold]:
    """(train, test) for each of so many parts of an order of rows; every row is tested once."""
    pieces = np.array_split(np.asarray(order), parts)
    return [(np.concatenate(pieces[:i] + pieces[i + 1 :]), piece) for i, piece in enumerate(pieces)]
