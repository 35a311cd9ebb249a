"""Examples whose units are not read alone in this epoch: less to compute, the same term in expectation."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from latentlm.data.text.augment.base import Draws, Needs, TextAugmentation, Transform, check_share
from latentlm.data.text.examples import Example


@dataclass(frozen=True)
class UnitDropout(TextAugmentation):
    """Leave out, with probability `prob`, the sequences in which units of an example are read alone.

    Terms over such units average over the examples that have them, so their weight stays what it is: the expectation
    is kept without dividing by ``1 - prob``, but for optimizer steps in which no example has any.

    Source:    loss dropout of LLM-JEPA, arXiv 2509.14252. Differs: drawn for each example, there for each batch, and
               their weight has to be raised by hand.
    Checked:   tests/data/text/augment/test_unit_dropout.py - share, epochs, the mean of the term.

    Args:
        prob: share of the examples.
    """

    prob: float = 0.5
    needs: ClassVar[tuple[Needs, ...]] = ("units_alone",)

    def __post_init__(self):
        check_share("unit_dropout", "prob", self.prob)

    def examples(self, dataset: Any) -> Transform:
        """A draw for each example and epoch."""
        return self._drop

    def _drop(self, example: Example, draws: Draws) -> Example:
        return replace(example, read_units=False) if bool(draws.uniform("units", 1)[0] < self.prob) else example
