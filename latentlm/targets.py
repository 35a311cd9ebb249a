"""Targets: where the right answer comes from, and who receives gradient.

Every target says which anchors it has (`mask`, without running anything) and gives their latents (`read`).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from latentlm.positions import At, Now, flat, index
from latentlm.tap import Tap
from latentlm.types import Context, Latents, View

Normalize = Literal["none", "layer", "l2"]


def normalized(values: Tensor, how: Normalize) -> Tensor:
    """``layer``: zero mean and unit variance over the width (no weights); ``l2``: unit length."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    if how == "layer":
        return F.layer_norm(values, values.shape[-1:])
    return F.normalize(values, dim=-1) if how == "l2" else values


@dataclass(frozen=True)
class Online:
    """The network's own latents, of this very forward.

        target = sg(h[tap])          or h[tap] where stop_grad is false

    Shapes:    [a n d], the width of the tap.
    Gradient:  none with `stop_grad`; otherwise through the tapped states into the network.
    Scale:     that of the residual stream unless `normalize` is set.
    Ranks:     local.
    Source:    common to NITP, NextLat and, with stop_grad false, LLM-JEPA; the recipes name their papers.
    Checked:   tests/test_targets.py - gradient table; equals the tapped states.

    Args:
        tap: what is predicted.
        stop_grad: cut the gradient into the target.
        normalize: per latent, after the tap.
    """

    tap: Tap
    stop_grad: bool = True
    normalize: Normalize = "none"
    teacher: ClassVar[str | None] = None

    def mask(self, view: View) -> Bool[Tensor, "a n"]:
        """Anchors and positions that exist."""
        return self.tap.mask(view)

    def read(self, context: Context, keep: Bool[Tensor, " a"]) -> Latents:
        """Latents of the anchors kept."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.stop_grad):
            return _from(context.view, self.tap, keep, context, self.normalize)


@dataclass(frozen=True)
class Ema:
    """Latents of a slow copy of the network on the same input.

        theta' <- momentum theta' + (1 - momentum) theta   after every optimizer step;   target = h_theta'[tap]

    Only trainable weights up to the deepest target are averaged; the rest is shared, so with LoRA
    the copy is the adapter.

    Shapes:    [a n d], the width of the tap.
    Gradient:  none; the copy never sees an optimizer.
    Scale:     that of the residual stream unless `normalize` is set.
    Ranks:     local; ranks hold equal weights, so their copies are equal.
    Source:    BYOL, arXiv 2006.07733; data2vec, arXiv 2202.03555.
    Checked:   tests/test_ema.py - equals a hand-written average; momentum 0 copies, 1 freezes; a deep copy's states.

    Args:
        tap: what is predicted, in the copy.
        momentum: share of the old weights kept per optimizer step.
        normalize: per latent, after the tap.
    """

    tap: Tap
    momentum: float = 0.999
    normalize: Normalize = "layer"
    teacher: ClassVar[str | None] = "ema"

    def __post_init__(self):
        _refuse_parts(self.tap, "ema")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"ema: momentum must lie in 0..1, got {self.momentum}")

    def mask(self, view: View) -> Bool[Tensor, "a n"]:
        """Anchors and positions that exist."""
        return self.tap.mask(view)

    @torch.no_grad()
    def read(self, context: Context, keep: Bool[Tensor, " a"]) -> Latents:
        """Latents of the anchors kept, from the teacher's view."""
        return _from(context.teachers["ema"], self.tap, keep, context, self.normalize)


@dataclass(frozen=True)
class Frozen:
    """Latents of the network as it was when training began.

        target = h_theta0[tap]

    Under PEFT the adapters are switched off for the teacher's forward and nothing is copied; otherwise the trainable
    weights up to the deepest target are copied once.

    Shapes:    [a n d], the width of the tap.
    Gradient:  none.
    Scale:     that of the residual stream unless `normalize` is set.
    Ranks:     local.
    Source:    SALT, arXiv 2509.24317 (frozen teacher).
    Checked:   tests/test_ema.py - equals the model before training, with and without LoRA.

    Args:
        tap: what is predicted, in the frozen network.
        normalize: per latent, after the tap.
    """

    tap: Tap
    normalize: Normalize = "layer"
    teacher: ClassVar[str | None] = "frozen"

    def __post_init__(self):
        _refuse_parts(self.tap, "frozen")

    def mask(self, view: View) -> Bool[Tensor, "a n"]:
        """Anchors and positions that exist."""
        return self.tap.mask(view)

    @torch.no_grad()
    def read(self, context: Context, keep: Bool[Tensor, " a"]) -> Latents:
        """Latents of the anchors kept, from the teacher's view."""
        return _from(context.teachers["frozen"], self.tap, keep, context, self.normalize)


@dataclass(frozen=True)
class TokenCode:
    """One vector that spells a span: the order-coded sum of its input embeddings.

        c = normalise( sum_j R_j e(x_j) )

    with R_j fixed orthogonal maps drawn from `seed`. They are signed permutations: orthogonal like any other, but d
    numbers instead of d^2, and exact in every precision.

    Shapes:    ids [a n] -> [a 1 e], e the width of the input embeddings.
    Gradient:  none; the embeddings learn from the data loss alone.
    Scale:     unit length.
    Ranks:     local; R_j is the same on all ranks.
    Source:    this project (evidence in recipes/README.md); binding by permutation: Kanerva 2009.
    Checked:   tests/test_targets.py - naive float64 loop; R_j orthogonal; order matters, padding does not.

    Args:
        ids: name of the id set that the data gives.
        seed: of the maps.
        ordered: false sums the embeddings as a bag.
    """

    ids: str
    seed: int = 0
    ordered: bool = True
    teacher: ClassVar[str | None] = None

    def mask(self, view: View) -> Bool[Tensor, "a 1"]:
        """Anchors whose span has at least one id."""
        return (index(self.ids, view).flatten(0, 1) >= 0).any(1, keepdim=True)

    @torch.no_grad()
    def read(self, context: Context, keep: Bool[Tensor, " a"]) -> Latents:
        """Codes of the anchors kept."""
        assert context.view.embed is not None
        ids = index(self.ids, context.view).flatten(0, 1)[keep]
        embedded = context.view.embed(ids.clamp(min=0))  # a n e
        embedded = embedded.to(torch.promote_types(embedded.dtype, torch.float32))
        if self.ordered:
            places, signs = signed_permutations(ids.shape[1], embedded.shape[-1], self.seed)
            places, signs = places.to(embedded.device), signs.to(embedded.device)
            embedded = embedded.gather(-1, places.expand_as(embedded)) * signs
        code = F.normalize(embedded.masked_fill((ids < 0)[..., None], 0).sum(1, keepdim=True), dim=-1)
        return Latents(code, (ids >= 0).any(1, keepdim=True), torch.full_like(ids[:, :1], -1))


@dataclass(frozen=True)
class Data:
    """The data itself: the id that each position has to predict.

        target = x_{t+1}   (whatever the labels say; -100 is no target)

    Shapes:    [a n] ids; goes with a data loss, the guess going through the network's readout.
    Gradient:  none.
    Scale:     -
    Ranks:     local.
    Source:    next-token prediction; at every depth: LayerSkip, arXiv 2404.16710.
    Checked:   tests/test_levels.py - at the top equals the model's own loss.

    Args:
        at: the positions that predict.
    """

    at: At = Now()
    teacher: ClassVar[str | None] = None

    def mask(self, view: View) -> Bool[Tensor, "a n"]:
        """Positions that have a label."""
        if view.labels is None:
            raise ValueError("target data: the batch has no labels; use a collator that gives them")
        where = flat(index(self.at, view), view.labels.shape[1])
        return (where >= 0) & (view.labels.flatten()[where.clamp(min=0)] >= 0)

    def read(self, context: Context, keep: Bool[Tensor, " a"]) -> Latents:
        """Ids of the anchors kept."""
        labels = context.view.labels
        assert labels is not None
        where = flat(index(self.at, context.view), labels.shape[1])[keep]
        ids = labels.flatten()[where.clamp(min=0)]
        return Latents(ids, (where >= 0) & (ids >= 0), where)


Target = Online | Ema | Frozen | TokenCode | Data


def _from(view: View, tap: Tap, keep: Tensor, context: Context, normalize: Normalize) -> Latents:
    latents = tap.read(view, keep, context.heads)
    return Latents(normalized(latents.values, normalize), latents.mask, latents.index)


def _refuse_parts(tap: Tap, kind: str) -> None:
    if tap.head is not None:
        raise ValueError(f"{kind}: a teacher has no heads of its own; drop 'head' from its tap")
    if tap.norm != "none":
        raise ValueError(f"{kind}: a teacher has no final norm of its own; use norm: none and normalize: layer")


@lru_cache(maxsize=32)
def signed_permutations(count: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """`count` random orthogonal maps as (places [n d], signs [n d]); map j sends e to signs_j * e[places_j]."""
    places, signs = [], []
    for j in range(count):  # one generator each, so that the maps of the first places do not depend on `count`
        generator = torch.Generator().manual_seed((seed * 1_000_003 + j) % 2**63)
        places.append(torch.randperm(dim, generator=generator))
        signs.append(torch.randint(0, 2, (dim,), generator=generator) * 2.0 - 1.0)
    if not places:
        return torch.empty(0, dim, dtype=torch.long), torch.empty(0, dim)
    return torch.stack(places), torch.stack(signs)


def target_dim(target: Target, hidden: int, embedding: int, heads: dict[str, int]) -> int:
    """Width of what a target gives; a guess of the data is a latent that the readout turns into logits."""
    if isinstance(target, TokenCode):
        return embedding
    if isinstance(target, Data):
        return hidden
    return heads[target.tap.head] if target.tap.head else hidden
