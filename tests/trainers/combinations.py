"""Every combination of some values, of which the default suite runs a part that meets all pairs."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest


def combinations(*axes: Sequence[Any], one_in: int) -> list[Any]:
    """All combinations, as `pytest.param`; those whose places do not add up to a multiple of `one_in` are slow.

    With as many values on an axis as `one_in`, any three of four axes still meet in every way.
    """
    found = []
    for places in product(*(range(len(axis)) for axis in axes)):
        values = [axis[place] for axis, place in zip(axes, places, strict=True)]
        found.append(pytest.param(*values, marks=pytest.mark.slow if sum(places) % one_in else ()))
    return found
