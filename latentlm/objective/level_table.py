"""The level table: which depths predict which levels, written in one block, expanded into ordinary terms.

Nothing below this module knows that a table exists.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from latentlm.components.data_targets import Pixels, Tokens
from latentlm.components.positions import At, Next, Now
from latentlm.components.predictors import Linear, Predictor
from latentlm.components.tap import Block, Depth, Tap, read_depth, resolve_depth
from latentlm.components.targets import Ema, Frozen, Normalize, Online, random_code
from latentlm.components.transformer_predictor import LinearOn, Transformer
from latentlm.losses import Mse, NextToken, PairLoss, RowLoss, SmoothL1
from latentlm.objective.terms import Predict
from latentlm.objective.weight import Weight, schedule


@dataclass(frozen=True)
class SpanPairs:
    """The anchors of one index set of the data predict those of another, such as the ends of two spans.

    Args:
        source: name of the set that predicts.
        target: name of the set that is predicted.
    """

    source: str
    target: str


@dataclass(frozen=True)
class MaskedPatches:
    """Visible patches predict masked ones; with ``source: masked``, mask tokens predict what is at their own positions.

    Args:
        source: name of the set that predicts.
        target: name of the set that is predicted.
    """

    source: str = "visible"
    target: str = "masked"


@dataclass(frozen=True)
class CrossView:
    """The class token of one view predicts that of the other, both ways.

    Args:
        source: name of the set that predicts.
        target: name of the set that is predicted.
    """

    source: str = "cls_1"
    target: str = "cls_2"


@dataclass(frozen=True)
class LevelTarget:
    """Whose latents are predicted, and how they are normalised.

    Args:
        teacher: the network itself (``online``), an EMA teacher (``ema``), or the network at the start of training
            (``frozen``).
        normalize: per latent: ``layer`` to zero mean and unit variance, ``l2`` to unit length.
        stop_grad: with ``online``: cut the gradient into the target.
        momentum: with ``ema``: share of the old weights kept per optimizer step.
        final_momentum: with ``ema``: momentum at the last step; without it `momentum` stays.
        checkpoint: with ``frozen``: folder of another checkpoint of the same architecture.
    """

    teacher: Literal["online", "ema", "frozen"] = "online"
    normalize: Normalize = "layer"
    stop_grad: bool = True
    momentum: float = 0.999
    final_momentum: float | None = None
    checkpoint: str | None = None

    def at(self, tap: Tap) -> Online | Ema | Frozen:
        """The target of one level."""
        if self.teacher == "ema":
            return Ema(tap, self.momentum, self.normalize, self.final_momentum)
        if self.teacher == "frozen":
            return Frozen(tap, self.normalize, self.checkpoint)
        return Online(tap, self.stop_grad, self.normalize)


@dataclass(frozen=True)
class LevelWeights:
    """Weights of a row: shares for the source's own depth and for the deepest level; the others get equal parts.

    A row's weights add up to 1. A share whose level is not in the row goes to the others; without others the shares are
    scaled up. For the deepest source, whose own depth is the deepest level, `top` is used and not `same_depth`.

    Args:
        same_depth: share of the level at the source's own depth.
        top: share of the deepest latent level (cI-JEPA's alpha).
        top_to_top: share of the deepest level in the row of the deepest source (cI-JEPA's beta); default `top`.
        data: share of the data level; without it the data is one of the others.
        other: how the remainder is divided among the other levels.
    """

    same_depth: float | None = None
    top: float | None = None
    top_to_top: float | None = None
    data: float | None = None
    other: Literal["uniform"] = "uniform"

    def __post_init__(self):
        for share in (self.same_depth, self.top, self.top_to_top, self.data):
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"weights: a share must lie in 0..1, got {share}")

    def row(self, source: int, targets: Sequence[int | None], is_last: bool) -> list[float]:
        """Weights of one source row; targets are block depths, None is the data."""
        deepest = max((t for t in targets if t is not None), default=None)
        fixed: dict[int, float] = {}
        for place, target in enumerate(targets):
            share = None
            if target is None:
                share = self.data
            elif target == deepest:
                share = self.top_to_top if is_last and self.top_to_top is not None else self.top
            if share is None and target is not None and target == source:
                share = self.same_depth
            if share is not None:
                fixed[place] = share
        spent, free = sum(fixed.values()), len(targets) - len(fixed)
        if spent > 1 + 1e-9:
            raise ValueError(f"weights: the shares of a row add up to {spent:g}; they must not exceed 1")
        if free == 0:
            return [fixed[place] / spent if spent else 1 / len(targets) for place in range(len(targets))]
        rest = (1 - spent) / free if spent < 1 - 1e-9 else 0.0  # shares such as .7 + .2 + .1 end beside 1
        return [fixed.get(place, rest) for place in range(len(targets))]


@dataclass(frozen=True)
class Levels:
    """A ladder: every source depth predicts every target level.

        L = 1/|S| sum_s sum_t w_st loss(P_st(h_s), target_t),   sum_t w_st = 1

    Args:
        sources: depths that predict.
        targets: depths that are predicted, and ``data``: the next token, decoded by the network's final norm and head,
            whatever `align` says; with ``align: masked_patches`` the pixels of the target's position.
        weights: a rule for the rows, or the full matrix (rows = sources).
        align: which target position a source position predicts.
        target: teacher and normalisation of the latent levels.
        predictor: every cell has a separate one.
        shared_trunk: each source has one transformer, and each of its cells only a separate linear layer on top.
        loss: of the latent levels; tokens have cross-entropy and pixels mse.
        pixels: ``patch`` normalises the pixels of each patch to zero mean and unit variance.
        weight: of the whole ladder.
        into: ``head`` keeps the gradient of all cells in their predictors, see `Tap`.
        shuffle: control arm: the latent cells get the targets of other pairs, see `Predict`.
        teacher: control arm: ``random``, whatever `target` says: the latent cells predict a random code, see `Predict`.
    """

    sources: tuple[Depth, ...]
    targets: tuple[Depth, ...]
    weights: LevelWeights | tuple[tuple[float, ...], ...] = LevelWeights()
    align: Next | SpanPairs | MaskedPatches | CrossView = Next()
    target: LevelTarget = LevelTarget()
    predictor: Predictor = Linear()
    shared_trunk: bool = False
    loss: PairLoss | RowLoss = SmoothL1()
    pixels: Literal["none", "patch"] = "patch"
    weight: float | Weight = 1.0
    into: Literal["network", "head"] = "network"
    shuffle: bool = False
    teacher: Literal["random"] | None = None

    def __post_init__(self):
        if not self.sources or not self.targets:
            raise ValueError("levels: needs at least one source and one target")
        if "data" in self.targets and not isinstance(self.align, Next | MaskedPatches):
            raise ValueError(
                "levels: the data level goes with align next or masked_patches; otherwise leave 'data' out of targets"
            )
        if self.shared_trunk and not isinstance(self.predictor, Transformer):
            raise ValueError("levels: shared_trunk goes with predictor transformer; set shared_trunk: false")
        for depth in (*self.sources, *(target for target in self.targets if target != "data")):
            read_depth(depth)
        # refuses what no cell can have
        Predict(Tap(1, into=self.into), self.target.at(Tap(1)), self.loss, self.predictor, weight=self.weight)

    @property
    def per_sample(self) -> bool:
        """Whether the values of a batch are those of its parts."""
        return self.loss.per_sample

    def matrix(self, num_layers: int) -> list[list[float]]:
        """The weights w_st; every row adds up to 1."""
        return self._matrix(*self._levels(num_layers))

    def _levels(self, num_layers: int) -> tuple[list[Block], list[Block | None]]:
        """Sources and targets as numbers of blocks; None is the data."""
        sources = [resolve_depth(s, num_layers) for s in self.sources]
        return sources, [None if t == "data" else resolve_depth(t, num_layers) for t in self.targets]

    def _matrix(self, sources: list[Block], targets: list[Block | None]) -> list[list[float]]:
        if isinstance(self.weights, LevelWeights):
            return [self.weights.row(s, targets, s == max(sources)) for s in sources]
        shape = [len(row) for row in self.weights]
        if shape != [len(targets)] * len(sources):
            raise ValueError(f"weights: must be {len(sources)} rows of {len(targets)} numbers")
        for row in self.weights:
            if min(row) < 0:
                raise ValueError(f"weights: row {list(row)} has a weight below 0; use 0 for a cell that is off")
            if abs(sum(row) - 1) > 1e-6:
                raise ValueError(f"weights: row {list(row)} adds up to {sum(row):g}; rows must add up to 1")
        return [list(row) for row in self.weights]

    def expand(self, name: str, num_layers: int) -> dict[str, Predict]:
        """The cells with weight as resolved `Predict` terms named ``name/source_to_target``."""
        here: At = Now() if isinstance(self.align, Next) else self.align.source
        there: At = self.align if isinstance(self.align, Next) else self.align.target
        sources, targets = self._levels(num_layers)
        matrix, terms = self._matrix(sources, targets), {}
        for source, row in zip(sources, matrix, strict=True):
            predictor, tap = self.predictor, Tap(source, at=here, into=self.into)
            for target, share in zip(targets, row, strict=True):
                if share == 0:
                    continue
                weight = schedule(self.weight).times(share / len(self.sources))
                common = {"predictor": predictor, "weight": weight}
                if target is None and isinstance(self.align, MaskedPatches):
                    cell = Predict(tap, Pixels(self.align.target, self.pixels), Mse(), **common)
                elif target is None:
                    cell = Predict(tap, Tokens(here), NextToken(), decode_with="norm_and_lm_head", **common)
                else:
                    goal = self.target.at(Tap(target, at=there))
                    goal = goal if self.teacher is None else random_code(goal)
                    cell = Predict(tap, goal, self.loss, shuffle=self.shuffle, **common)
                label = f"{name}/{source}_to_{'data' if target is None else target}"
                terms[label] = cell
                predictor = LinearOn(label) if self.shared_trunk and isinstance(predictor, Transformer) else predictor
        if len(terms) != sum(share > 0 for row in matrix for share in row):
            raise ValueError(f"{name}: two of its depths are the same block of {num_layers}; use fewer or other depths")
        return terms
