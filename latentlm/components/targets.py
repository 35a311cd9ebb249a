"""Targets that are states, of the network or of a teacher, and the union of all targets: what is predicted.

`mask` says which anchors and positions a target has, without running the network; `read` returns their latents.
"""

from collections.abc import Callable, Hashable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from latentlm.components.assignments import Assign
from latentlm.components.data_targets import Pixels, Tokens
from latentlm.components.positions import At
from latentlm.components.tap import Tap, Widths
from latentlm.components.teacher import TeacherConfig
from latentlm.components.token_embeddings import TokenEmbeddings
from latentlm.config.schema import kind_of
from latentlm.losses.precision import without_gradient
from latentlm.types import ForwardView, Latents, StepContext

Normalize = Literal["none", "layer", "l2"]


def normalized(values: Tensor, how: Normalize) -> Tensor:
    """``layer``: zero mean and unit variance over the width (no weights); ``l2``: unit length."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    if how == "layer":
        return F.layer_norm(values, values.shape[-1:])
    return F.normalize(values, dim=-1) if how == "l2" else values


OfStates = TypeVar("OfStates", bound="StateTarget")


@dataclass(frozen=True)
class StateTarget:
    """Shared by all targets that are states, of the network or of a teacher.

    Args:
        tap: what is predicted.
    """

    tap: Tap
    needs_lm_head = False

    @property
    def positions(self) -> At:
        """Positions of the tap."""
        return self.tap.at

    @property
    def mask_key(self) -> Hashable:
        """Which positions exist depends neither on the depth nor on the head nor on the gradient."""
        return self.tap.at, self.tap.pool

    def dim(self, widths: Widths) -> int:
        """Width of the tap."""
        return self.tap.dim(widths)

    def resolve(self: OfStates, num_layers: int) -> OfStates:
        """The same target of a network of `num_layers` blocks."""
        return replace(self, tap=self.tap.resolve(num_layers))

    def over(self: OfStates, at: At) -> OfStates:
        """The same target at other positions."""
        return replace(self, tap=replace(self.tap, at=at))

    def mask(self, view: ForwardView) -> Bool[Tensor, "a n"]:
        """Anchors and positions that exist."""
        return self.tap.mask(view)


@dataclass(frozen=True)
class Online(StateTarget):
    """The network's own latents, from the same forward.

        target = sg(h[tap])          or h[tap] where stop_grad is false

    Shapes:    [a n d], the width of the tap.
    Gradient:  none with `stop_grad`; otherwise through the tapped states into the network.
    Scale:     that of the residual stream unless `normalize` is set.
    Ranks:     local.
    Source:    common to NITP, NextLat and, with stop_grad false, LLM-JEPA; the recipes name their papers.
    Checked:   tests/components/test_targets.py - gradient table; equals the tapped states.

    Args:
        tap: what is predicted.
        stop_grad: cut the gradient into the target.
        normalize: per latent, after the tap.
        assign: make balanced assignments of logits over prototypes (SwAV).
    """

    tap: Tap
    stop_grad: bool = True
    normalize: Normalize = "none"
    assign: Assign | None = None
    teacher = None
    teacher_config = None

    def __post_init__(self):
        _check_tap("online", self.tap, self.assign)
        if self.assign is not None and not self.stop_grad:
            raise ValueError("online: an assignment has no gradient; set stop_grad: true, or drop assign")

    @property
    def has_gradient(self) -> bool:
        """Whether gradient flows into the target."""
        return not self.stop_grad

    @property
    def index_sets(self) -> tuple[At, ...]:
        """Positions of the tap, and those among which assignments are made."""
        return _sets(self.tap, self.assign)

    def read(self, context: StepContext, keep: Bool[Tensor, " a"]) -> Latents:
        """Latents of the anchors kept."""
        with without_gradient() if self.stop_grad else nullcontext():
            return _from(context.view, self.tap, keep, context.heads, self.normalize)


@dataclass(frozen=True)
class Ema(StateTarget):
    """Latents of an EMA teacher, a running average of the network, on the same input.

        theta' <- momentum theta' + (1 - momentum) theta   after every optimizer step;   target = h_theta'[tap]

    Only trainable weights up to the deepest target are averaged; all others are shared. With LoRA only the adapter is
    copied.

    Shapes:    [a n d], the width of the tap.
    Gradient:  none; the copy never sees an optimizer.
    Scale:     that of the residual stream unless `normalize` is set.
    Ranks:     local; ranks hold equal weights, so their copies are equal.
    Source:    BYOL, arXiv 2006.07733; data2vec, arXiv 2202.03555.
    Checked:   tests/components/test_teacher.py - equals a hand-written average; momentum 0 copies, 1 freezes; a deep
               copy's states.

    Args:
        tap: what is predicted, in the copy; a head is a copy as well.
        momentum: share of the old weights kept per optimizer step. With 0 nothing is copied: the teacher is the network
            itself, without gradient, on the whole input.
        normalize: per latent, after the tap.
        final_momentum: momentum at the last step (BYOL: 1); default: `momentum` stays.
        momentum_schedule: how it is reached, by half a cosine or by a line (I-JEPA).
        assign: make assignments of logits over prototypes, centred (DINO) or balanced (SwAV, CAPI).
        online_head: use the network's current head, not a teacher's copy of it (CAPI).
    """

    tap: Tap
    momentum: float = 0.999
    normalize: Normalize = "layer"
    final_momentum: float | None = None
    momentum_schedule: Literal["cosine", "linear"] = "cosine"
    assign: Assign | None = None
    online_head: bool = False
    teacher = "ema"
    has_gradient = False

    def __post_init__(self):
        _check_tap("ema", self.tap, self.assign)
        if self.online_head and self.tap.head is None:
            raise ValueError("ema: online_head needs a head; name one in its tap, or leave online_head out")
        for momentum in (self.momentum, self.final_momentum):
            if momentum is not None and not 0 <= momentum <= 1:
                raise ValueError(f"ema: momentum and final_momentum must lie in 0..1, got {momentum}")

    @property
    def teacher_config(self) -> TeacherConfig:
        """How the teacher's weights are made."""
        copied = self.tap.head is not None and not self.online_head
        return TeacherConfig(
            self.momentum,
            self.final_momentum,
            self.momentum_schedule,
            heads=(self.tap.head,) if copied else (),  # type: ignore[arg-type]
        )

    @property
    def index_sets(self) -> tuple[At, ...]:
        """Positions of the tap, and those among which assignments are made."""
        return _sets(self.tap, self.assign)

    @without_gradient()
    def read(self, context: StepContext, keep: Bool[Tensor, " a"]) -> Latents:
        """Latents of the anchors kept, from the teacher's view."""
        heads = context.heads if self.online_head else context.teacher_heads.get("ema", {})
        return _from(context.teacher_views["ema"], self.tap, keep, heads, self.normalize)


@dataclass(frozen=True)
class Frozen(StateTarget):
    """Latents of a frozen teacher: the network at the start of training, some steps ago, or of another checkpoint.

        target = h_theta0[tap]          or, with r = refresh_every, theta_(r * floor(step / r))

    Under PEFT nothing is copied: the teacher's forward runs with the adapters off. Otherwise, and with `refresh_every`,
    the trainable weights up to the deepest target are copied.

    Shapes:    [a n d], the width of the tap.
    Gradient:  none.
    Scale:     that of the residual stream unless `normalize` is set.
    Ranks:     local.
    Source:    SALT, arXiv 2509.24317 (frozen teacher); DINOv3, arXiv 2508.10104 (renewed, for Gram anchoring).
    Checked:   tests/components/test_teacher.py - equals the model before training, with and without LoRA; the model of
               some steps ago.

    Args:
        tap: what is predicted, in the frozen network.
        normalize: per latent, after the tap.
        checkpoint: folder of another checkpoint of the same architecture (a run's ``model/``), as SALT has it.
        refresh_every: copy the network again every so many optimizer steps; 0: never.
    """

    tap: Tap
    normalize: Normalize = "layer"
    checkpoint: str | None = None
    refresh_every: int = 0
    teacher = "frozen"
    assign = None
    has_gradient = False

    def __post_init__(self):
        if self.refresh_every < 0 or (self.refresh_every and self.checkpoint is not None):
            raise ValueError(
                f"frozen: refresh_every must be 0 or more, and 0 with weights of another run; got {self.refresh_every}"
            )
        _check_tap("frozen", self.tap, None)
        if self.tap.head is not None:
            raise ValueError("frozen: its head would stay as it was drawn; drop 'head' from its tap")

    @property
    def teacher_config(self) -> TeacherConfig:
        """How the teacher's weights are made."""
        return TeacherConfig(checkpoint=self.checkpoint, refresh_every=self.refresh_every)

    @property
    def index_sets(self) -> tuple[At, ...]:
        """Positions of the tap."""
        return _sets(self.tap, None)

    @torch.no_grad()
    def read(self, context: StepContext, keep: Bool[Tensor, " a"]) -> Latents:
        """Latents of the anchors kept, from the teacher's view."""
        return _from(context.teacher_views["frozen"], self.tap, keep, {}, self.normalize)


@dataclass(frozen=True)
class Random(StateTarget):
    """Latents of a network of the same architecture with weights drawn at random and never trained: a random code.

        target = h_random[tap],   random: ``type(network)(config)`` after ``torch.manual_seed(seed)``

    A control: what a term gains with it as well, it does not owe to anything a teacher has learned. ``teacher: random``
    on a term puts it in the place of that term's own target.

    All weights up to the deepest target are kept, those that the network does not train (LoRA) as well: in memory and
    in checkpoints it costs one more network of that depth, and while it is drawn another whole one on the CPU.

    Shapes:    [a n d], the width of the tap.
    Gradient:  none.
    Scale:     that of the untrained residual stream unless `normalize` is set.
    Ranks:     local; the weights are the same on all ranks.
    Source:    control of this project; random network distillation, arXiv 1810.12894, predicts such a code.
    Checked:   tests/components/test_random_teacher.py - states of a freshly drawn network, full and LoRA; resumed the
               same.

    Args:
        tap: what is predicted, in the random network; a head is drawn at random as well.
        normalize: per latent, after the tap.
        seed: of the weights.
        assign: as of the target that it replaces.
    """

    tap: Tap
    normalize: Normalize = "layer"
    seed: int = 0
    assign: Assign | None = None
    teacher = "random"
    has_gradient = False

    def __post_init__(self):
        _check_tap("random", self.tap, self.assign)

    @property
    def teacher_config(self) -> TeacherConfig:
        """How its weights come about."""
        return TeacherConfig(random_seed=self.seed, heads=() if self.tap.head is None else (self.tap.head,))

    @property
    def index_sets(self) -> tuple[At, ...]:
        """Positions of the tap, and those among which assignments are made."""
        return _sets(self.tap, self.assign)

    @torch.no_grad()
    def read(self, context: StepContext, keep: Bool[Tensor, " a"]) -> Latents:
        """Latents of the anchors kept, from the teacher's view."""
        heads = context.teacher_heads.get("random", {})
        return _from(context.teacher_views["random"], self.tap, keep, heads, self.normalize)


Targets = Online | Ema | Frozen | Random | TokenEmbeddings | Tokens | Pixels
"""The targets that a recipe can name."""


def random_code(target: Targets) -> Random | TokenEmbeddings:
    """The same target, read of a random network."""
    if isinstance(target, TokenEmbeddings):
        return replace(target, of="random")
    if isinstance(target, Tokens | Pixels):
        raise ValueError(
            f"teacher: random replaces the network whose latents are predicted, and a target {kind_of(type(target))} "
            "has none; leave it out"
        )
    return target if isinstance(target, Random) else Random(target.tap, target.normalize, assign=target.assign)


def _check_tap(kind: str, tap: Tap, assign: Assign | None) -> None:
    if tap.of != "network":
        raise ValueError(f"{kind}: the target itself says whose states it reads; leave 'of' out of its tap")
    if tap.into != "network":
        raise ValueError(f"{kind}: the target itself says whether it has gradient; leave 'into' out of its tap")
    if assign is not None and assign.per_position_of is not None and tap.pool != "none":
        raise ValueError(
            f"{kind}: assign per_position_of '{assign.per_position_of}' needs single positions; use pool: none"
        )


def _sets(tap: Tap, assign: Assign | None) -> tuple[At, ...]:
    among = None if assign is None else assign.per_position_of
    return (tap.at,) if among is None else (tap.at, among)


def _from(view: ForwardView, tap: Tap, keep: Tensor, heads: Mapping[str, Callable], normalize: Normalize) -> Latents:
    latents = tap.read(view, keep, heads)
    return Latents(normalized(latents.values, normalize), latents.mask, latents.index)
