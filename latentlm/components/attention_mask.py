"""The mask of packed segments in which some positions do not see all that stands before them."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

READ = ("sdpa", "eager")  # attention implementations of transformers that read a mask of every query and key


def seen(segments: Int[Tensor, "b t"], hidden: Int[Tensor, "b n 3"]) -> Bool[Tensor, "b 1 t t"]:
    """Which keys k each query q sees.

        seen_qk = segment_q = segment_k  and  k <= q  and  not (first <= k < stop and q >= since) for any hidden

    Args:
        segments: of every position; what is alike sees each other.
        hidden: ``first``, ``stop`` and ``since``, positions of a row; -1 pads.
    """
    place = torch.arange(segments.shape[1], device=segments.device)
    table = (segments[:, :, None] == segments[:, None, :]) & (place[None, :] <= place[:, None])
    for first, stop, since in (part.unbind(-1) for part in hidden.unbind(1)):
        keys = (place >= first[:, None]) & (place < stop[:, None])
        table &= ~(keys[:, None, :] & (place >= since[:, None])[:, :, None])
    return table[:, None]


def as_attention_mask(
    table: Bool[Tensor, "b 1 t t"], implementation: str, dtype: torch.dtype
) -> Tensor | Float[Tensor, "b 1 t t"]:
    """The table as that implementation reads it: as it is, or 0 where it sees and the lowest number where it does not.

    Raises:
        ValueError: for an implementation that reads no such mask.
    """
    if implementation not in READ:
        raise ValueError(f"hidden: attention {implementation!r} reads no mask of its own; use {' or '.join(READ)}")
    if implementation == "sdpa":
        return table
    return torch.where(table, 0.0, torch.finfo(dtype).min).to(dtype)
