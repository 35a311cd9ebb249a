"""What a target has to say about itself: nothing outside asks which class it is.

A new target is one class with these members and its name in the union `Targets` of `targets.py`; one that reads no
states inherits most of them from `InputTarget`.
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
        positions: where the target is, one by one or pooled; None where it has none of its own, such as a set of ids.
        teacher: whose states are read, ``ema`` or ``frozen``; None: the network's own, or none.
        teacher_config: how that teacher's weights come about; None without a teacher.
        assign: what turns its values into assignments; None: they stay as they are.
        has_gradient: whether the loss trains the network through the target as well.
        needs_lm_head: its values are ids ``[a n]``, which a guess meets as logits of the network's own output head.
        index_sets: positions and named sets that it reads, in the view of its teacher where it has one.
        mask_key: all that `mask` depends on; targets with equal keys have equal masks.
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
    """What targets made of the input alone have in common: no states, no teacher, no gradient."""

    tap = None
    teacher = None
    teacher_config = None
    assign = None
    has_gradient = False
    needs_lm_head = False

    @property
    def mask_key(self) -> Hashable:
        """The target itself: its mask is like no other's."""
        return self

    def resolve(self: OfInput, num_layers: int) -> OfInput:
        """Itself: it reads no depth."""
        return self

    def over(self: OfInput, at: At) -> OfInput:
        """Itself: it has no assignments."""
        return self
