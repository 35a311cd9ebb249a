"""A target that spells a span of ids in one vector."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from latentlm.positions import index
from latentlm.types import Context, Latents, View


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
