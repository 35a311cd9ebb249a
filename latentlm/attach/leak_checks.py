"""Does a model keep packed segments apart, and what is hidden hidden? Asked of the model itself, of any family."""

from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def mixes_segments(model: nn.Module, batch: dict[str, Any]) -> bool:
    """Whether changing the first segment's ids changes the logits in any later segment of a packed batch.

    Two small forwards without gradient, on rows that hold more than one segment; False where there are none.
    """
    segments = batch["latent"]["segments"]
    rows = segments.max(1).values > 0
    if not rows.any():
        return False
    place = next(model.parameters()).device
    ids, positions = batch["input_ids"][rows][:2].to(place), batch["position_ids"][rows][:2].to(place)
    segments = segments[rows][:2].to(place)
    packed = {"position_ids": positions, "latent": {"segments": segments}}  # read just as in training
    return _knows(model, ids, packed, changed=segments == 0, later=segments > 0)


@torch.no_grad()
def sees_hidden(model: nn.Module, ids: Tensor) -> bool:
    """Whether a model that is told to hide the first half of the ids ``[b t]`` from the second one does not."""
    ids = ids.to(next(model.parameters()).device)
    half, segments = ids.shape[1] // 2, torch.zeros_like(ids)
    hidden = torch.tensor([0, half, half], device=ids.device).expand(len(ids), 1, 3)
    later = (torch.arange(ids.shape[1], device=ids.device) >= half).expand_as(ids)
    rest = {"latent": {"segments": segments, "hidden": hidden}}
    try:
        return _knows(model, ids, rest, changed=~later, later=later)
    except (RuntimeError, ValueError, IndexError):  # what a model without attention makes of such a mask
        return True


def _knows(model: nn.Module, ids: Tensor, rest: dict[str, Any], changed: Tensor, later: Tensor) -> bool:
    training = model.training
    model.eval()
    try:
        logits, other = (
            model(input_ids=i, **rest).logits for i in (ids, torch.where(changed, (ids + 1) % int(ids.max() + 1), ids))
        )
    finally:
        model.train(training)
    # what is not seen changes nothing, but for the rounding of experts that get other tokens; small leaks are leaks
    rounding = max(1e-5, torch.finfo(logits.dtype).eps / 8)
    return bool((logits - other)[later].abs().max() > rounding * logits.abs().max())
