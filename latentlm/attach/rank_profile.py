"""Rank of a model's latents at every depth, on one batch."""

import torch
from torch import Tensor, nn

from latentlm.attach.state import latent_run
from latentlm.backbones import hidden_state
from latentlm.monitor.statistics import rank


@torch.no_grad()
def rank_over_depth(model: nn.Module, batch: dict, samples: int = 2048) -> dict:
    """Rank of the raw states at every depth (0 = input of the first block) on one batch of documents or images."""
    run = latent_run(model)
    place = next(model.parameters()).device
    found: list[Tensor] = []
    hooks = [
        run.backbone.layers[0].register_forward_pre_hook(
            lambda m, a, k: found.append(a[0] if a else k["hidden_states"]), with_kwargs=True
        )
    ]
    hooks += [
        layer.register_forward_hook(lambda m, a, o: found.append(hidden_state(o))) for layer in run.backbone.layers
    ]
    known = ("input_ids", "position_ids", "attention_mask", "pixel_values")
    inputs = {k: v.to(place) for k, v in batch.items() if k in known}
    inputs["latent"] = batch["latent"]  # read just as in training
    training = model.training
    model.eval()
    try:
        model(**inputs)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    segments = batch["latent"].get("segments", torch.zeros(found[0].shape[:2]))  # of an image everything is real
    real = segments.to(place) >= 0
    ranks = [round(rank(state[real][:samples]), 3) for state in found]
    return {"depth": list(range(len(found))), "rank": ranks, "dim": run.backbone.dim}
