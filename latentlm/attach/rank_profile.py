"""Rank of a model's latents at every depth, on one batch."""

import torch
from torch import nn

from latentlm.attach.state import latent_state
from latentlm.backbones.collect_states import collect_states
from latentlm.monitor.statistics import rank


@torch.no_grad()
def rank_over_depth(model: nn.Module, batch: dict, samples: int = 2048) -> dict:
    """Rank of the raw states at every depth (0 = input of the first block) on one batch of documents or images."""
    state = latent_state(model)
    place = next(model.parameters()).device
    known = ("input_ids", "position_ids", "attention_mask", "pixel_values")
    inputs = {k: v.to(place) for k, v in batch.items() if k in known}
    inputs["latent"] = batch["latent"]  # read just as in training
    depths = range(len(state.backbone.layers) + 1)
    training = model.training
    model.eval()
    try:
        found = collect_states(lambda: model(**inputs), state.backbone.layers, depths, lambda values: values)
    finally:
        model.train(training)
    segments = batch["latent"].get("segments", torch.zeros(found[0].shape[:2]))  # of an image everything is real
    real = segments.to(place) >= 0
    ranks = [round(rank(values[real][:samples]), 3) for values in found]
    return {"depth": list(range(len(found))), "rank": ranks, "dim": state.backbone.dim}
