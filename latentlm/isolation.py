"""Does a model keep packed segments apart? Asked of the model itself, whatever its family."""

from typing import Any

import torch
from torch import nn


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
    changed = torch.where(segments == 0, (ids + 1) % int(ids.max() + 1), ids)
    training = model.training
    model.eval()
    try:
        logits, other = (model(input_ids=i, **packed).logits for i in (ids, changed))
    finally:
        model.train(training)
    return bool((logits - other)[segments > 0].abs().max() > 1e-3 * logits.abs().max())
