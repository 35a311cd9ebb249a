"""The target `token_embeddings`: the tokens of a span, as one vector."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from latentlm.components.positions import At, check_ids, ids_of
from latentlm.components.tap import Widths
from latentlm.components.target_protocol import InputTarget
from latentlm.components.teacher import TeacherConfig
from latentlm.components.units import Unit
from latentlm.types import ForwardView, Latents, StepContext


@dataclass(frozen=True)
class TokenEmbeddings(InputTarget):
    """The input embeddings of a span's tokens with their order, in one vector or in one for each token.

        c = normalise( sum_j R_j e(x_j) )     or, with pool none,     c_j = normalise( R_j e(x_j) )

    with R_j fixed orthogonal maps drawn from `seed`. They are signed permutations: d numbers each instead of d^2, and
    exact in every precision.

    Shapes:    ids [a n] -> [a 1 e], with pool none [a n e]; e is the width of the input embeddings.
    Gradient:  none; the embeddings are trained by the data loss alone.
    Scale:     unit length.
    Ranks:     local; R_j is the same on all ranks.
    Source:    this project (evidence in recipes/README.md); binding by permutation: Kanerva 2009.
    Checked:   tests/components/test_targets.py - naive float64 loop; R_j orthogonal; order matters, padding does not.

    Args:
        ids: name of the id set that the data gives, or a unit whose tokens are spelled (``pick: all``).
        seed: of the maps.
        ordered: false leaves the maps out, so that the order of the tokens does not count.
        pool: ``none`` makes each token a separate target. Then it is not enough to predict the one token that tells the
            span from others.
        of: whose input embeddings: the ``network``'s, or as a control those of a ``random`` one, drawn as the target
            `Random` says and never trained.
    """

    ids: str | Unit
    seed: int = 0
    ordered: bool = True
    pool: Literal["sum", "none"] = "sum"
    of: Literal["network", "random"] = "network"

    @property
    def teacher(self) -> str | None:  # type: ignore[override]
        """The random network, where its embeddings are meant."""
        return None if self.of == "network" else "random"

    @property
    def teacher_config(self) -> TeacherConfig | None:  # type: ignore[override]
        """How its weights come about."""
        return None if self.of == "network" else TeacherConfig(random_seed=0)

    def __post_init__(self):
        check_ids("token_embeddings", self.ids)

    @property
    def positions(self) -> At | None:
        """A set of ids has no positions."""
        return None

    @property
    def index_sets(self) -> tuple[At, ...]:
        """Its ids."""
        return (self.ids,)

    def dim(self, widths: Widths) -> int:
        """Width of the input embeddings."""
        return widths.embedding

    def mask(self, view: ForwardView) -> Bool[Tensor, "a n"]:
        """Anchors whose span has at least one id; with pool none the ids that are there."""
        there = ids_of(self.ids, view).flatten(0, 1) >= 0
        return there.any(1, keepdim=True) if self.pool == "sum" else there

    @torch.no_grad()
    def read(self, context: StepContext, keep: Bool[Tensor, " a"]) -> Latents:
        """Codes of the anchors kept."""
        embed = context.view_of(self.of).embed
        assert embed is not None
        ids = ids_of(self.ids, context.view).flatten(0, 1)[keep]
        embedded = embed(ids.clamp(min=0))  # a n e
        embedded = embedded.to(torch.promote_types(embedded.dtype, torch.float32))
        if self.ordered:
            places, signs = signed_permutations(ids.shape[1], embedded.shape[-1], self.seed)
            places, signs = places.to(embedded.device), signs.to(embedded.device)
            embedded = embedded.gather(-1, places.expand_as(embedded)) * signs
        embedded, there = embedded.masked_fill((ids < 0)[..., None], 0), ids >= 0
        if self.pool == "sum":
            embedded, there = embedded.sum(1, keepdim=True), there.any(1, keepdim=True)
        return Latents(F.normalize(embedded, dim=-1), there, torch.full_like(ids[:, : there.shape[1]], -1))


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
