"""What one call of a model brings along, as far as the terms need it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100


@dataclass(frozen=True)
class Call:
    """The arguments of a forward that say what was read, what is to be predicted, and how both are counted.

    Attributes:
        latent: ``segments [b t]`` and the named sets of the collator; of images also ``views [v]`` and what of each
            is seen: ``keep [b*v k]`` or ``mask [b*v p]``.
        num_items_in_batch: label tokens of the whole optimizer step, where the caller counts them.
    """

    input_ids: Tensor | None = None
    pixel_values: Tensor | None = None
    attention_mask: Any = None
    position_ids: Tensor | None = None
    labels: Tensor | None = None
    shift_labels: Tensor | None = None
    num_items_in_batch: Tensor | int | None = None
    latent: dict[str, Tensor] | None = None

    @classmethod
    def read(cls, kwargs: Mapping[str, Any]) -> "Call":
        """Of all arguments, those that matter here."""
        return cls(**{field.name: kwargs.get(field.name) for field in fields(cls)})

    @property
    def sets(self) -> dict[str, Tensor]:
        """Index and id sets by name."""
        return {name: value for name, value in (self.latent or {}).items() if name != "segments"}

    def segments(self) -> Tensor:
        """Segment number of each position: what the data says, else the padding mask, else where positions restart."""
        if self.latent and "segments" in self.latent:
            return self.latent["segments"]
        mask, positions, ids = self.attention_mask, self.position_ids, self.input_ids
        if isinstance(mask, Tensor) and mask.dim() == 2:
            return torch.where(mask.bool(), 0, -1)
        if positions is not None and positions.dim() == 2:
            jumps = positions.diff(dim=1, prepend=positions[:, :1] - 1) != 1
            return jumps.cumsum(1).expand(len(positions) if ids is None else len(ids), -1)
        if ids is None:
            raise ValueError("latent terms need input_ids, attention_mask or position_ids to know the positions")
        return torch.zeros_like(ids)

    def next_labels(self) -> Tensor | None:
        """Labels moved to the position that predicts them."""
        if self.shift_labels is not None or self.labels is None or self.labels.dim() < 2:
            return self.shift_labels
        return F.pad(self.labels[:, 1:], (0, 1), value=IGNORE)

    def num_labels(self) -> Tensor | int:
        """Label tokens of this call; 1 where there are no labels."""
        labels = self.labels if self.labels is not None and self.labels.dim() < 2 else self.next_labels()
        return 1 if labels is None else (labels != IGNORE).sum()
