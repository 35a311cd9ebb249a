"""How attention is told of packed segments: a mask in which some positions are hidden, or where each segment ends."""

from typing import Any

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


FLASH = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")


def flash_arguments(positions: Int[Tensor, "1 t"]) -> dict[str, Any]:
    """What flash attention is told of the segments of one row: a segment begins wherever the positions are 0."""
    starts = (positions[0] == 0).nonzero().flatten()
    ends = torch.cat([starts, starts.new_tensor([positions.shape[1]])]).int()
    longest = int(ends.diff().max())
    told: dict[str, Any] = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends}
    told |= {"max_length_q": longest, "max_length_k": longest}
    return told | {"seq_idx": (positions == 0).cumsum(1).int() - 1}
