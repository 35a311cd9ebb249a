"""Units for a model's terms in any loop: its objective says which, the tokenizer finds them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from latentlm.attach.forward_io import ForwardInputs
from latentlm.attach.leak_checks import mixes_segments
from latentlm.attach.state import latent_state
from latentlm.data.text.collate import Collator
from latentlm.data.text.unit_collator import UnitCollator
from latentlm.data.text.units import STANDARD, UnitRule
from latentlm.objective.index_sets import neighbours_read, units_read


def with_units(
    collator: Callable[[Any], Any],
    tokenizer: Any,
    model: nn.Module,
    *,
    units: Sequence[UnitRule] = (),
    max_length: int | None = None,
) -> UnitCollator:
    """Wrap any collator so that its batches have the units that the model's terms read.

        Trainer(model=model, data_collator=with_units(collator, tokenizer, model), ...)

    `LatentTrainer` and `LatentSFTTrainer` do it by themselves.

    Args:
        collator: makes ``input_ids``, and ``labels`` where there is a next-token loss.
        tokenizer: of the network, with a fast decoder.
        model: with latent heads.
        units: rules for grains of one's own, as ``data.units`` of a recipe.
        max_length: tokens at which the data have been cut.

    Raises:
        ValueError: the terms read no units, or a grain that nobody knows, or units alone of a network that lets packed
            segments see each other.
    """
    state = latent_state(model)
    terms = state.objective.terms.values()
    grains, alone = units_read(terms)
    if not grains:
        raise ValueError("with_units: the model's terms read no units; use the collator as it is")
    known = (*STANDARD, *(rule.grain for rule in units))
    if unknown := [grain for grain in grains if grain not in known]:
        raise ValueError(
            f"with_units: no rule for the grain '{unknown[0]}'; give one in units (known: {', '.join(known)})"
        )
    if alone and _mixes(model):
        raise ValueError(
            f"with_units: {type(state.model).__name__} lets packed segments see each other, so no unit can be read "
            "alone; use read: in_context"
        )
    segments = partial(_segments, pad_token_id=state.attachment.pad_token_id)  # a lambda would not reach workers
    return UnitCollator(collator, tokenizer, segments, grains, alone, tuple(units), max_length, neighbours_read(terms))


def _segments(batch: Mapping[str, Any], pad_token_id: int | None) -> Tensor:
    return ForwardInputs.of(batch).segments(pad_token_id)


def _mixes(model: nn.Module) -> bool:
    """Twice the same two documents, because some attention isolates segments in a single row only."""
    documents = [{"input_ids": ids, "labels": ids} for ids in ([1, 2, 3, 4, 5], [3, 1, 4])] * 2
    return mixes_segments(model, Collator(0, row_length=8)(documents))
