"""What flows between the parts, and the shape letters of the whole package.

Letters: ``b`` batch rows, ``g`` groups in a row, ``n`` positions in a group, ``m`` samples of a statistic, ``d`` width,
``t`` raw tokens or patches of a row, ``k`` slices, ``v`` vocabulary.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Latents:
    """Vectors picked out of a view, with what is needed to pair them with others.

    ``b`` here counts anchors: the rows and groups of an index ``[b g n]`` folded into one axis.
    Values at masked positions are arbitrary (even NaN) and must never be read. Where the target is the data itself,
    values are ids ``[b n]``. ``index`` counts over all positions of all rows (``b*t``), -1 where there is none.
    """

    values: Shaped[Tensor, "b n *d"]
    mask: Bool[Tensor, "b n"]
    index: Int[Tensor, "b n"]


@dataclass
class ForwardView:
    """One run of the network: the states at the depths somebody asked for, and how positions relate.

    Attributes:
        states: depth (0 = input of the first block, k = raw output of block k) -> hidden state.
        segments: which document a position belongs to; -1 is padding. Segments never exchange information.
        sets: tensors named by the collator: index sets ``[b g n]`` into ``t`` or id sets ``[b g n]``, -1 pads; and the
            units of each grain, see `components/units.py`.
        inputs: the ids that were read, where the network reads ids.
        embed: ids -> input embeddings of the network.
        norm: the network's own final norm.
        readout: latents after the final norm -> logits of the network's own output head, weights frozen.
        labels: the data targets, already aligned with the position that predicts them (-100 = none).
        pixels: gives the input values of each position, where the network reads those.
        places: where in its segment each position lies, as coordinates.
        tapped: the states as the blocks gave them, where `states` are laid out anew; gradients arrive there.
        unread: positions at which no latents are read.
    """

    states: dict[int, Float[Tensor, "b t d"]]
    segments: Int[Tensor, "b t"]
    sets: dict[str, Tensor] = field(default_factory=dict)
    inputs: Int[Tensor, "b t"] | None = None
    labels: Int[Tensor, "b t"] | None = None
    embed: Callable[[Tensor], Tensor] | None = None
    norm: Callable[[Tensor], Tensor] | None = None
    readout: Callable[[Tensor], Tensor] | None = None
    pixels: Callable[[], Float[Tensor, "b t e"]] | None = None
    places: Shaped[Tensor, "t k"] | None = None
    tapped: dict[int, Tensor] = field(default_factory=dict)
    unread: Bool[Tensor, "b t"] | None = None
    _cache: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def for_term(self, name: str) -> "ForwardView":
        """Without what a term does not read: the collator names those positions ``unread/TERM`` ``[b t]``."""
        key = unread_key(name)
        if key not in self.sets:
            return self
        sets = {other: value for other, value in self.sets.items() if other != key}
        return replace(self, sets=sets, unread=self.sets[key], _cache={})

    def cached(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for this view: several terms look at the same positions."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]


def unread_key(term: str) -> str:
    """Name of the set of positions that a term does not read; the cells of a table are read like the whole table."""
    return f"unread/{term.partition('/')[0]}"


Head = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class StepContext:
    """Everything a term may read in one forward, complete when it is made.

    Attributes:
        view: of the network itself.
        teacher_views: of the same input by each teacher, by its name (``ema``, ``frozen``).
        heads: the shared heads by name.
        teacher_heads: for each teacher the shared heads that it has copies of.
        step: optimizer steps made so far.
        total_steps: optimizer steps in all, where they are known.
    """

    view: ForwardView
    teacher_views: Mapping[str, ForwardView] = field(default_factory=dict)
    heads: Mapping[str, Head] = field(default_factory=dict)
    teacher_heads: Mapping[str, Mapping[str, Head]] = field(default_factory=dict)
    step: int = 0
    total_steps: int | None = None
    _cache: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def view_of(self, whose: str) -> ForwardView:
        """The network's own view (``network``), or a teacher's."""
        return self.view if whose == "network" else self.teacher_views[whose]

    def for_term(self, name: str) -> "StepContext":
        """What a term may read of it: everything, unless the data say that it reads only a part."""
        key = unread_key(name)
        if key not in self.view.sets:
            return self

        def make() -> StepContext:
            teachers = {kind: view.for_term(name) for kind, view in self.teacher_views.items()}
            return replace(self, view=self.view.for_term(name), teacher_views=teachers, _cache={})

        return self.cached(key, make)

    def cached(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once in this step: the cells of a level table read the same few states."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]


@dataclass(frozen=True)
class TermLoss:
    """What a step has to say about one term: a sum and how many positions it was summed over.

    Carrying both makes means exact over micro-batches and ranks; `value` is the local mean. The weight is a
    tensor where it is adapted during training. A term that `is_off` at this step was not run.
    """

    sum: Float[Tensor, ""]
    count: Float[Tensor, ""]
    weight: float | Float[Tensor, ""] = 1.0
    is_off: bool = False

    @property
    def value(self) -> Float[Tensor, ""]:
        """Local mean; 0 where nothing was counted."""
        return self.sum / self.count.clamp(min=1)
