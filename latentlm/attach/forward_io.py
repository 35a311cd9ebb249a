"""What one forward of a model is given, holds and returns, as far as the terms need it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from latentlm.components.attention_mask import FLASH, flash_arguments

IGNORE = -100


@dataclass(frozen=True)
class ForwardInputs:
    """The arguments of a forward that say what was read, what is to be predicted, and how both are counted.

    Attributes:
        latent: ``segments [b t]`` and the named sets of the collator; of images also ``views [v]`` and what of each
            is seen: ``keep [b*v k]`` or ``mask [b*v p]``.
        num_items_in_batch: label tokens of the whole optimizer step, where the caller counts them.
        cu_seq_lens_q: where each document of one row begins and the last ends (flash attention's).
        seq_idx: number of each position's document.
    """

    input_ids: Tensor | None = None
    pixel_values: Tensor | None = None
    attention_mask: Any = None
    position_ids: Tensor | None = None
    labels: Tensor | None = None
    shift_labels: Tensor | None = None
    num_items_in_batch: Tensor | int | None = None
    cu_seq_lens_q: Tensor | None = None
    seq_idx: Tensor | None = None
    latent: dict[str, Tensor] | None = None

    @classmethod
    def of(cls, kwargs: Mapping[str, Any]) -> "ForwardInputs":
        """Of all arguments, those that matter here."""
        return cls(**{each.name: kwargs.get(each.name) for each in dataclasses.fields(cls)})

    @property
    def sets(self) -> dict[str, Tensor]:
        """Index and id sets by name."""
        return {name: value for name, value in (self.latent or {}).items() if name != "segments"}

    def segments(self, pad_token_id: int | None = None) -> Tensor:
        """Segment number of each position, -1 for padding.

        What the data says; else the document of `seq_idx` or `cu_seq_lens_q`; else the mask, 0 or 1, or 1, 2, ... by
        document, and a new one wherever positions restart. What the mask hides is padding, whatever says the documents.
        Without any of these a row is one document, and what ends it in padding without a label is none of it.

        Args:
            pad_token_id: of the network.
        """
        if self.latent and "segments" in self.latent:
            return self.latent["segments"]
        mask, positions, ids = self.attention_mask, self.position_ids, self.input_ids
        table = mask if isinstance(mask, Tensor) and mask.dim() == 2 else None
        numbers = self._numbered_documents()
        if numbers is None and table is not None:
            numbers = table.long() - 1
            if positions is not None and positions.dim() == 2:
                numbers = _split_at_restarts(numbers, positions.expand_as(table))
        if numbers is not None:
            return numbers if table is None else numbers.masked_fill(table <= 0, -1)
        if mask is not None:
            raise ValueError(
                "attention_mask: a table of queries and keys does not say which tokens are of one document; also give "
                "latent={'segments': numbers [rows, positions], -1 for padding}, or a mask [rows, positions]"
            )
        if positions is not None and positions.dim() == 2:
            jumps = positions.diff(dim=1, prepend=positions[:, :1] - 1) != 1
            return jumps.cumsum(1).expand(len(positions) if ids is None else len(ids), -1)
        if ids is None:
            raise ValueError("latent terms need input_ids, attention_mask or position_ids to know the positions")
        segments = torch.zeros_like(ids)
        if pad_token_id is None or self.labels is None or self.labels.shape != ids.shape:
            return segments
        blank = (ids == pad_token_id) & (self.labels == IGNORE)
        return segments.masked_fill(blank.flip(1).cumprod(1).flip(1).bool(), -1)

    def _numbered_documents(self) -> Tensor | None:
        """The document of each position, where the inputs number them."""
        ids, ends = self.input_ids, self.cu_seq_lens_q
        if self.seq_idx is not None or ends is None or ids is None or len(ids) != 1:
            return self.seq_idx
        place = torch.arange(ids.shape[1], device=ids.device)
        return torch.bucketize(place, ends[1:].to(place), right=True)[None]

    def next_labels(self) -> Tensor | None:
        """Labels moved to the position that predicts them."""
        if self.shift_labels is not None or self.labels is None or self.labels.dim() < 2:
            return self.shift_labels
        return F.pad(self.labels[:, 1:], (0, 1), value=IGNORE)

    def num_labels(self) -> Tensor | int:
        """Label tokens of this forward; 1 where there are no labels."""
        labels = self.labels if self.labels is not None and self.labels.dim() < 2 else self.next_labels()
        return 1 if labels is None else (labels != IGNORE).sum()


def _split_at_restarts(numbers: Tensor, positions: Tensor) -> Tensor:
    """Documents ``[b t]``, -1 for padding, cut where positions go back from one token of a document to its next.

    Counted anew from 0. Gaps cut nothing: positions may skip what the mask hides.
    """
    real = numbers >= 0
    place = torch.arange(numbers.shape[1], device=numbers.device)
    latest = torch.where(real, place, -1).cummax(1).values
    before = F.pad(latest[:, :-1], (1, 0), value=-1)
    at = before.clamp(min=0)
    changed = (numbers != numbers.gather(1, at)) | (positions <= positions.gather(1, at))
    return (changed & real & (before >= 0)).cumsum(1)


@dataclass(frozen=True)
class Part:
    """Some segments of a batch, moved to the front of the rows that have any; what is left of a row is padding.

    Attributes:
        shape: rows and positions of the whole batch.
        rows: numbers of the rows ``[r]``.
        order: where in its row each position comes from ``[r w]``; None: these rows as they are.
        there: whether it is one of the segments ``[r w]``, or padding.
    """

    shape: tuple[int, int]
    rows: Tensor
    order: Tensor | None = None
    there: Tensor | None = None

    def of(self, table: Tensor) -> Tensor:
        """These positions of a table ``[b t]`` or of vectors ``[b t d]``; padding has what stands somewhere else."""
        taken = table[self.rows]
        if self.order is None:
            return taken
        order = self.order if table.dim() == 2 else self.order[..., None].expand(-1, -1, table.shape[-1])
        return taken.gather(1, order)

    def arguments(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a decoder for these positions."""
        per_row = {name: each for name, each in kwargs.items() if name not in FLASH}
        taken = {name: self.of(each) for name, each in per_row.items() if isinstance(each, Tensor) and each.dim()}
        if self.there is not None:
            # the padding is one more segment, which ends each row
            padding = (~self.there).long().cumsum(1) - 1
            taken["position_ids"] = torch.where(self.there, taken["position_ids"], padding)
            told = {} if len(per_row) == len(kwargs) else flash_arguments(taken["position_ids"])
            taken |= {name: told[name] for name in FLASH if kwargs.get(name) is not None}
        return {**kwargs, **taken}

    def back(self, state: Tensor) -> Tensor:
        """States ``[r w d]`` in their places ``[b t d]``, 0 elsewhere."""
        number, length = self.shape
        if self.order is not None and self.there is not None:
            # the padding is written to places of what is left out, each once; choosing by `there` would wait
            order = self.order[..., None].expand_as(state)
            filled = state.masked_fill(~self.there[..., None], 0)
            state = state.new_zeros(len(state), length, state.shape[-1]).scatter(1, order, filled)
        if len(state) == number:
            return state
        return state.new_zeros(number, *state.shape[1:]).index_copy(0, self.rows, state)


@dataclass
class Forward:
    """One training forward of a model: made before it, dropped after it.

    Attributes:
        inputs: what it was given.
        blocks: depths to store, of the network itself (None) and of each teacher; a teacher without any is not run.
        terms: names of the terms that run.
        states: of the blocks that the terms read, by depth.
        tapped: the same as the blocks gave them, where the network runs on a part of the batch.
        local_states: the same of local views, which are smaller and run by themselves.
        teacher_states: the same of each teacher.
        teacher: whose forward is running inside this one; None: the network's own.
        part: what the running one of these is given of the batch; None: all of it.
        in_local_views: whether the network is running on local views inside this forward.
        collecting: until the heads have run; a block that runs again in the backward stores nothing.
        in_terms: while the terms run, which may ask for input embeddings of their own.
        compiled: whether the blocks run inside a compiled graph.
        loss: weighted sum of the terms.
        lm_head_hooks: removed after this forward.
        ran: depths that were reached, by the network (None), on which views, and by each teacher.
    """

    inputs: ForwardInputs
    blocks: Mapping[str | None, frozenset[int]]
    terms: frozenset[str] = frozenset()
    states: dict[int, Tensor] = field(default_factory=dict)
    tapped: dict[int, Tensor] = field(default_factory=dict)
    local_states: dict[int, Tensor] = field(default_factory=dict)
    teacher_states: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    teacher: str | None = None
    part: Part | None = None
    in_local_views: bool = False
    collecting: bool = True
    in_terms: bool = False
    compiled: bool = False
    loss: Tensor | None = None
    lm_head_hooks: list[RemovableHandle] = field(default_factory=list)
    ran: set[tuple[str | None, bool, int]] = field(default_factory=set)

    def reach(self, depth: int) -> None:
        """ValueError where a depth is reached twice: a looped network has several states there."""
        key = (self.teacher, self.in_local_views, depth)
        if key in self.ran:
            raise ValueError(
                f"block {max(depth, 1)} ran twice in one forward (a looped network?), so its depth names two states; "
                "latent terms need a network in which every block runs once"
            )
        self.ran.add(key)

    @property
    def is_own(self) -> bool:
        """Whether the network itself is running, on the views that masks are made for."""
        return self.teacher is None and not self.in_local_views

    def store(self, depth: int, state: Tensor) -> None:
        """Keep the state of a depth, the network's own or that of the teacher that is running."""
        if self.in_local_views:
            self.local_states[depth] = state
        else:
            (self.states if self.teacher is None else self.teacher_states[self.teacher])[depth] = state


@cache
def with_latent_losses(output: type) -> type:
    """An output class of transformers that also has ``loss``, ``latent_loss`` and ``data_loss``.

    A declared class: data parallel wrappers rebuild outputs from their class and refuse keys added later.
    """
    known = {each.name for each in dataclasses.fields(output)}
    extra = [(name, Any, None) for name in ("loss", "latent_loss", "data_loss") if name not in known]
    return dataclasses.make_dataclass(f"Latent{output.__name__}", extra, bases=(output,))
