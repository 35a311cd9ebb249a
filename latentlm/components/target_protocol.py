"""What every target has to define. No other code asks which class a target is.

To add one, write a class with these members and add its name to the union `Targets` of `targets.py`. A target made of
the input alone gets most of them from `InputTarget`.
"""

from collections.abc import Hashable
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Bool
from torch import Tensor

from latentlm.components.assignments import Assign
from latentlm.components.positions import At
from latentlm.components.tap import Tap, Widths
from latentlm.components.teacher import TeacherConfig
from latentlm.types import ForwardView, Latents, StepContext


@runtime_checkable
class Target(Protocol):
    """What is predicted.

    Members:
        tap: the states that are read; None for a target made of the input alone.
        positions: positions of the target; None where it has none, such as a set of ids.
        teacher: ``ema``, ``frozen`` or ``random`` where states of a teacher are read, else None.
        teacher_config: how that teacher's weights are made; None without a teacher.
        assign: makes assignments of its values; None: they are used as they are.
        has_gradient: whether gradient flows into the target.
        needs_lm_head: its values are ids ``[a n]``, so the guess has to be logits of the network's output head.
        index_sets: positions and named sets that it reads, in the view of its teacher if it has one.
        mask_key: everything that `mask` depends on: targets with equal keys have equal masks.
    """

    # ruff: noqa: D102 - said above
    @property
    def tap(self) -> Tap | None: ...
    @property
    def positions(self) -> At | None: ...
    @property
    def teacher(self) -> str | None: ...
    @property
    def teacher_config(self) -> TeacherConfig | None: ...
    @property
    def assign(self) -> Assign | None: ...
    @property
    def has_gradient(self) -> bool: ...
    @property
    def needs_lm_head(self) -> bool: ...
    @property
    def index_sets(self) -> tuple[At, ...]: ...
    @property
    def mask_key(self) -> Hashable: ...

    def dim(self, widths: Widths) -> int:
        """Width that a guess needs."""
        ...

    def resolve(self, num_layers: int) -> "Target":
        """The same target of a network of `num_layers` blocks: its tap has a `Block` for every depth."""
        ...

    def over(self, at: At) -> "Target":
        """The same target at other positions; needed only where it has `assign`."""
        ...

    def mask(self, view: ForwardView) -> Bool[Tensor, "a n"]:
        """Anchors and positions that exist; needs no states."""
        ...

    def read(self, context: StepContext, keep: Bool[Tensor, " a"]) -> Latents:
        """Values of the anchors kept."""
        ...


OfInput = TypeVar("OfInput", bound="InputTarget")


class InputTarget:
    """Shared by all targets made of the input alone: no states, no teacher, no gradient."""

    tap = None
    teacher = None
    teacher_config = None
    assign = None
    has_gradient = False
    needs_lm_head = False

    @property
    def mask_key(self) -> Hashable:
        """The target itself: no other target has its mask."""
        return self

    def resolve(self: OfInput, num_layers: int) -> OfInput:
        """Itself: it reads no depth."""
        return self

    def over(self: OfInput, at: At) -> OfInput:
        """Itself: it has no assignments."""
        return self
