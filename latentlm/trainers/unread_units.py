"""Batches without the units that were read alone for terms that are off: what nothing reads is not run."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from latentlm.components.units import Unit, segments_with_copies
from latentlm.objective.index_sets import places_read, units_read
from latentlm.objective.terms import PlainTerm

IGNORE = -100


def without_unread_units(batch: dict[str, Any], running: Collection[PlainTerm]) -> dict[str, Any]:
    """The same batch without copies of units that no running term reads alone.

    Left as it is where a running term reads more than units, since `now` and `next` read the copies as well, and where
    tokens are hidden from others, by their places.

    Checked:   tests/trainers/test_unread_units.py - documents, units and loss stay; what is still read stays.

    Args:
        batch: of a collator.
        running: resolved terms that are run on it.
    """
    latent: dict[str, Tensor] = batch.get("latent") or {}
    copies = {name.removeprefix("alone/"): table for name, table in latent.items() if name.startswith("alone/")}
    places = [at for term in running for each in places_read(term) for at in each]
    if not copies or "hidden" in latent or not all(isinstance(at, Unit) for at in places):
        return batch
    needed = {each.grain for each in units_read(running)[1]}
    if needed >= copies.keys():
        return batch
    segments = latent["segments"]
    keep = (segments >= 0) & (
        ~segments_with_copies(segments, copies, copies) | segments_with_copies(segments, copies, needed)
    )
    width = max(int(keep.sum(1).max()), 1)
    order = keep.logical_not().to(torch.int8).argsort(dim=1, stable=True)[:, :width]  # what is kept comes first
    there = keep.gather(1, order)

    def cut(table: Tensor, blank: int) -> Tensor:
        return torch.where(there, table.gather(1, order), blank)

    # the padding is one more segment, which ends each row
    places_of_padding = (~there).long().cumsum(1) - 1
    rest = {"input_ids": batch["input_ids"].gather(1, order), "labels": cut(batch["labels"], IGNORE)}
    rest["position_ids"] = torch.where(there, batch["position_ids"].gather(1, order), places_of_padding)
    roles = {name: table for name, table in latent.items() if name.startswith("roles/")}
    unread = {f"alone/{grain}" for grain in copies.keys() - needed}
    others = {name: table for name, table in latent.items() if table.shape == segments.shape and name not in roles}
    tables = {name: cut(table, -1) for name, table in others.items()}
    return {**batch, **rest, "latent": {name: each for name, each in (tables | roles).items() if name not in unread}}
