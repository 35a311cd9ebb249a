"""A forward on some segments of a batch: those that nobody reads of it are left out.

A unit that is read alone is read by a teacher and by nobody else: the network runs on the documents, the teacher on the
units. A replayed text is a part of a mixture: what only its terms read runs on its rows.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from latentlm.attach.forward_io import Forward, Part
from latentlm.components.attention_mask import FLASH
from latentlm.components.positions import At
from latentlm.components.units import Unit, segments_with_copies
from latentlm.objective.index_sets import places_read
from latentlm.objective.terms import PlainTerm, readers
from latentlm.types import unread_key

# arguments of a decoder of which each row is a row of the batch, and their dimensions
BY_ROW = {("input_ids", 2), ("inputs_embeds", 3), ("position_ids", 2), ("attention_mask", 2), ("attention_mask", 4)}
ASKED = ("output_hidden_states", "output_attentions")
LEAST = 1 / 8  # share of the positions that must fall away: to put states back in their places costs a copy


def own_part(forward: Forward, specs: Mapping[str, PlainTerm], kwargs: Mapping[str, Any], config: Any) -> Part | None:
    """What the network itself runs on: documents, and units that it reads alone itself; None: everything.

    Units that only teachers read, or only terms that are off, are left out.

    Args:
        forward: with the terms that run.
        specs: all terms.
        kwargs: of the decoder.
        config: of the network: whoever asks for all states or attentions is given those of the whole batch.
    """
    if any(kwargs.get(name) or getattr(config, name, False) for name in ASKED):
        return None
    places = [at for name in forward.terms for at in places_read(specs[name])[0]]
    if not all(isinstance(at, Unit) for at in places):
        return None  # `now` and `next` read the copies as well
    alone = {at.grain for at in places if isinstance(at, Unit) and at.read == "alone"}
    latent = forward.inputs.latent or {}
    copies = _copies(latent)
    if not copies or not _can_be_cut(latent, kwargs):
        return None
    segments = latent["segments"]
    gone = segments_with_copies(segments, copies, copies) & ~segments_with_copies(segments, copies, alone)
    needed = (segments >= 0) & ~gone
    return _part(latent, needed, kwargs, every_row=True)


def teacher_part(forward: Forward, specs: Mapping[str, PlainTerm], kind: str, kwargs: Mapping[str, Any]) -> Part | None:
    """What a teacher runs on: the units that it reads alone, and of a mixture the parts that its terms read."""
    latent = forward.inputs.latent or {}
    if "segments" not in latent:
        return None
    segments = latent["segments"]
    needed = segments >= 0
    names = readers({name: specs[name] for name in forward.terms}, kind)
    if _can_be_cut(latent, kwargs) and (copies := _copies(latent)):
        grains = _read_alone([at for name in names for at in places_read(specs[name])[1]])
        if grains is not None:
            needed = needed & segments_with_copies(segments, copies, grains)
    if names and all(unread_key(name) in latent for name in names):
        needed = needed & ~torch.stack([latent[unread_key(name)] for name in names]).all(0)
    return _part(latent, needed, kwargs, every_row=False)


def whole_output(output: Any, part: Part) -> Any:
    """The decoder's output with its last states in their places, 0 where there is none: a label is nowhere else."""
    if isinstance(output, tuple):
        return (part.back(output[0]), *output[1:])
    output["last_hidden_state"] = part.back(output["last_hidden_state"])
    return output


def _read_alone(places: Collection[At]) -> set[str] | None:
    """Grains whose units are read alone; None where anything else is read as well."""
    units = [at for at in places if isinstance(at, Unit) and at.read == "alone"]
    return {unit.grain for unit in units} if len(units) == len(places) else None


def _copies(latent: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("alone/"): table for name, table in latent.items() if name.startswith("alone/")}


def _can_be_cut(latent: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> bool:
    """Whether segments can be taken out of rows: nothing but the positions keeps them apart."""
    masked = kwargs.get("attention_mask") is not None or "hidden" in latent
    return not masked and isinstance(kwargs.get("position_ids"), Tensor) and "segments" in latent


def _part(
    latent: Mapping[str, Tensor], needed: Bool[Tensor, "b t"], kwargs: Mapping[str, Any], every_row: bool
) -> Part | None:
    number, length = latent["segments"].shape
    if not all(_by_row(name, value, number) for name, value in kwargs.items()):
        return None
    read = needed.any(1)
    if every_row:
        read = torch.ones_like(read)
    else:
        # one row in any case: where weights are sharded, all ranks gather them
        read[0] |= ~read.any()
    rows = read.nonzero()[:, 0]
    needed = needed[rows]
    if not _can_be_cut(latent, kwargs):
        return None if len(rows) == number else Part((number, length), rows)
    width = max(int(needed.sum(1).max()), 1)
    if len(rows) * width > (1 - LEAST) * number * length:
        return None
    order = needed.logical_not().to(torch.int8).argsort(dim=1, stable=True)[:, :width]  # what is needed comes first
    return Part((number, length), rows, order, needed.gather(1, order))


def _by_row(name: str, value: Any, number: int) -> bool:
    """Whether rows can be taken out of an argument of the decoder, or it has none."""
    if name in FLASH:  # made anew
        return value is None or number == 1
    if isinstance(value, Tensor) and value.dim():
        return (name, value.dim()) in BY_ROW and len(value) == number
    return value is None or isinstance(value, bool | int | float | str | Tensor)
