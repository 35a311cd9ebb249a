"""The table of levels over units: what each grain predicts at its depth, written in one block.

It expands into ordinary terms; nothing below this module knows that a table exists.
"""

from dataclasses import dataclass, replace
from typing import Literal

from latentlm.components.data_targets import Tokens
from latentlm.components.predictors import Linear, PerTokenLinear, Predictor
from latentlm.components.tap import Depth, Tap, read_depth, resolve_depth
from latentlm.components.units import Unit
from latentlm.losses import InfoNce, NextToken, PairLoss, RowLoss
from latentlm.objective.level_table import LevelTarget
from latentlm.objective.terms import Predict
from latentlm.objective.weight import Weight, schedule

Predicts = Literal["next", "after_next", "previous", "parts", "parent", "data"]
_BESIDE = {"next": 1, "after_next": 2, "previous": -1}  # places in the document


@dataclass(frozen=True)
class UnitLevel:
    """One grain of a table.

    Args:
        grain: kind of unit, from small to large in the table.
        depth: whose state at the last token of a unit predicts; of several, such as ``[1/4, 1/2]``, each for itself.
        predicts: ``next`` and ``previous``: the unit beside it; ``after_next``: the one behind the next; ``parts``: the
            units of the level before in the table that lie in it, in their order; ``parent``: the unit of the following
            level that it lies in; ``data``: the tokens of the next unit.
        weight: of each of these at each depth, a number or a schedule; times that of the table.
    """

    grain: str
    depth: Depth | tuple[Depth, ...]
    predicts: tuple[Predicts, ...] = ("next",)
    weight: float | Weight = 1.0

    def __post_init__(self):
        if not self.depths:
            raise ValueError(f"unit_levels: the level {self.grain} has no depth; give it one or several")
        for depth in self.depths:
            read_depth(depth)
        if not self.predicts:
            raise ValueError(f"unit_levels: the level {self.grain} predicts nothing; give it next, data or another")

    @property
    def depths(self) -> tuple[Depth, ...]:
        """All depths, as written."""
        return self.depth if isinstance(self.depth, tuple) else (self.depth,)


@dataclass(frozen=True)
class UnitLevels:
    """A ladder over grains: chunks low, sentences above them, paragraphs or turns on top, each predicting others.

        L = sum_g w_g sum_d sum_r loss(P_gdr(h_gd(u)), target(r(u))),   r what g predicts

    with h_gd(u) the state at a depth d of the grain g at the last token of its unit u, in its document. The unit that
    is predicted is read alone, so that its state cannot hold what the source has already seen. The target is that state
    at the same depth, for parts at the last depth of their grain and for a parent at the first of its grain. ``data``
    is the next unit's tokens through the network's own output head.

    Scale:     that of the losses; with the default contrast log of the number of units in the batch at most.
    Ranks:     as the loss; the default contrasts with the units of all ranks.
    Checked:   tests/objective/test_unit_levels.py - equals terms written out by hand; a naive loop.

    Args:
        levels: from small to large grains.
        read: ``alone`` or ``in_context`` (the control: the target has seen what predicts it).
        target: whose states are predicted.
        predictor: one of its own for every level and relation; parts have a matrix for each place.
        loss: of states.
        data: tokens of the next unit as a ``bag``, or in their ``order``.
        most: places, where parts or tokens are predicted in order.
        shuffle: for a control: every guess gets the target of another unit.
        teacher: for a control: ``random``, whatever `target` says: a random code of the other unit is predicted, see
            `Predict`.
        into: ``head`` keeps the gradient of the table in its predictors, see `Tap`.
        weight: of the whole table, a number or a schedule; a level with a schedule of its own keeps that.
    """

    levels: tuple[UnitLevel, ...]
    read: Literal["alone", "in_context"] = "alone"
    target: LevelTarget = LevelTarget(teacher="ema")
    predictor: Predictor = Linear()
    loss: PairLoss | RowLoss = InfoNce(skip_duplicates=True)
    data: Literal["bag", "order"] = "bag"
    most: int = 8
    shuffle: bool = False
    teacher: Literal["random"] | None = None
    into: Literal["network", "head"] = "network"
    weight: float | Weight = 1.0

    def __post_init__(self):
        grains = [level.grain for level in self.levels]
        if not grains or len(set(grains)) < len(grains):
            raise ValueError(f"unit_levels: needs one level or more, each of a grain of its own; got {grains}")
        for place, level in enumerate(self.levels):
            if "parts" in level.predicts and place == 0:
                raise ValueError(f"unit_levels: {level.grain} is the smallest grain and has no parts; leave parts out")
            if "parent" in level.predicts and place == len(self.levels) - 1:
                raise ValueError(f"unit_levels: {level.grain} is the largest grain and has no parent; leave parent out")
        if self.most < 1:
            raise ValueError(f"unit_levels: most {self.most}; set it to 1 or more")
        self.cells("unit_levels")  # refuses what no cell can have

    @property
    def per_sample(self) -> bool:
        """Whether the values of a batch are those of its parts."""
        return self.loss.per_sample

    def cells(self, name: str) -> dict[str, Predict]:
        """All terms as they would be written one by one, named ``name/grain_relation``.

        Of a grain with several depths ``name/grain_relation_1`` is at the first of them.
        """
        return {
            f"{name}/{level.grain}_{relation}{f'_{number}' if len(level.depths) > 1 else ''}": self._cell(
                place, depth, relation
            )
            for place, level in enumerate(self.levels)
            for relation in level.predicts
            for number, depth in enumerate(level.depths, 1)
        }

    def expand(self, name: str, num_layers: int) -> dict[str, Predict]:
        """The terms of a network of `num_layers` blocks."""
        for level in self.levels:
            blocks = [resolve_depth(depth, num_layers) for depth in level.depths]
            if len(set(blocks)) < len(blocks):
                raise ValueError(
                    f"{name}: two depths of {level.grain} are the same block of {num_layers}; use fewer or other depths"
                )
        return {label: cell.resolve(num_layers) for label, cell in self.cells(name).items()}

    def _cell(self, place: int, depth: Depth, relation: Predicts) -> Predict:
        level = self.levels[place]
        source = Tap(depth, at=Unit(level.grain), into=self.into)
        own, table = level.weight, schedule(self.weight)
        weight = own.times(table.value) if isinstance(own, Weight) else table.times(schedule(own).value)
        if relation == "data":
            whole = Unit(level.grain, offset=1, pick="all")
            predictor = Linear() if self.data == "bag" else PerTokenLinear(self.most)
            return Predict(
                source, Tokens(ids=whole), NextToken(), predictor, weight, "norm_and_lm_head", shuffle=self.shuffle,
                reduction="per_example",
            )  # fmt: skip
        predictor: Predictor = PerTokenLinear(self.most) if relation == "parts" else self.predictor
        if relation == "parts":
            depth = self.levels[place - 1].depths[-1]
        elif relation == "parent":
            depth = self.levels[place + 1].depths[0]
        target = self.target.at(Tap(depth, at=self._related(place, relation)))
        return Predict(source, target, self.loss, predictor, weight, shuffle=self.shuffle, teacher=self.teacher)

    def _related(self, place: int, relation: Predicts) -> Unit:
        grain = self.levels[place].grain
        if relation == "parts":
            unit = Unit(self.levels[place - 1].grain, parts_of=grain)
        elif relation == "parent":
            unit = Unit(self.levels[place + 1].grain, parent_of=grain)
        else:
            unit = Unit(grain, offset=_BESIDE[relation])
        return replace(unit, read=self.read)
