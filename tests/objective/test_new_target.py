"""A target that nobody else knows: the protocol is all that a term asks of it."""

from dataclasses import dataclass

import torch
from toy_view import DIM, LAYERS, context, view

from latentlm.components.positions import At, Now, flat, index
from latentlm.components.predictors import Linear
from latentlm.components.tap import Tap, Widths
from latentlm.components.target_protocol import InputTarget, Target
from latentlm.losses import Mse
from latentlm.monitor.statistics import measure
from latentlm.objective.index_sets import sets_read
from latentlm.objective.objective import Objective
from latentlm.objective.terms_module import Terms
from latentlm.types import ForwardView, Latents, StepContext


@dataclass(frozen=True)
class PositionNumber(InputTarget):
    """The number of a position, three times as wide as it need be."""

    at: At = Now()

    @property
    def positions(self) -> At:
        return self.at

    @property
    def index_sets(self) -> tuple[At, ...]:
        return (self.at,)

    def dim(self, widths: Widths) -> int:
        return 3

    def mask(self, view: ForwardView) -> torch.Tensor:
        return index(self.at, view).flatten(0, 1) >= 0

    def read(self, context: StepContext, keep: torch.Tensor) -> Latents:
        segments = context.view.segments
        where = flat(index(self.at, context.view), segments.shape[1])[keep]
        number = (where % segments.shape[1]).double()
        return Latents(number[..., None].expand(*number.shape, 3), where >= 0, where)


def test_a_new_target_is_one_class(unchecked_types):  # this class is in no union
    from latentlm.objective.terms import Predict

    assert isinstance(PositionNumber(), Target)
    spec = Predict(Tap("1/2", at="ends"), PositionNumber("ends"), Mse(), Linear(), distance_to=None)
    objective = Objective(terms={"where": spec})
    assert sets_read(spec) == ["ends", "ends"]
    assert objective.uses_batch_statistics == []
    built = Terms(objective.resolve(LAYERS), {}, DIM, DIM).double()
    seen = view([[0, 0, 0, 0, 0]], {"ends": [[[1], [2], [3], [4]]]})
    made = context(built, seen)
    loss = built(made)["where"]
    guess = seen.states[2][0, 1:] @ built["where"].predictor.network.weight.T + built["where"].predictor.network.bias
    wanted = torch.arange(1.0, 5.0, dtype=torch.float64)[:, None].expand(4, 3)
    torch.testing.assert_close(loss.value, (guess - wanted).square().mean())
    assert built.counts(seen)["where"] == loss.count == 4
    assert measure(built, made)["monitor/where/verdict"]
