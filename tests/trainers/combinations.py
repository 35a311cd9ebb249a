"""Every combination of some values, of which the default suite runs few that meet all pairs."""

from collections.abc import Sequence
from itertools import combinations as pairs_of
from itertools import product
from typing import Any

import pytest


def combinations(*axes: Sequence[Any]) -> list[Any]:
    """All combinations, as `pytest.param`. Any two values of two axes meet in one that is not slow."""
    every = list(product(*(range(len(axis)) for axis in axes)))
    pairs = {places: set(pairs_of(enumerate(places), 2)) for places in every}
    unmet, default = set().union(*pairs.values()), set()
    while unmet:
        best = max(every, key=lambda places: len(pairs[places] & unmet))
        default.add(best)
        unmet -= pairs[best]
    return [
        pytest.param(
            *(axis[place] for axis, place in zip(axes, places, strict=True)),
            marks=() if places in default else pytest.mark.slow,
        )
        for places in every
    ]
