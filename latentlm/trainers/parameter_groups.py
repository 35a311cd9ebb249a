"""Learning rates by depth: parameter groups of an optimizer, split by where in the network a weight is."""

from collections.abc import Mapping

from torch import nn
from torch.optim import Optimizer

from latentlm.backbones import Backbone


def depth_scales(model: nn.Module, backbone: Backbone, decay: float) -> dict[int, float]:
    """The factor of each weight's learning rate, by its id: ``decay^(L + 1 - k)``.

    k is the number of the weight's block among L, counted from 1; 0 in front of the blocks, L + 1 behind them and in
    the heads. Clark et al. 2020 (ELECTRA), arXiv:2003.10555, as in BEiT, arXiv:2106.08254, and DINOv2.
    """
    num = backbone.num_layers
    depth = {id(weight): number for number, block in enumerate(backbone.layers, 1) for weight in block.parameters()}
    behind = backbone.norm.parameters() if backbone.norm is not None else ()
    depth |= {id(weight): num + 1 for weight in behind}
    inside = {id(weight) for weight in backbone.decoder.parameters()}
    heads = {id(weight) for weight in model.latent.parameters()}  # type: ignore[union-attr]
    for weight in model.parameters():
        in_front = id(weight) in inside and id(weight) not in heads
        depth.setdefault(id(weight), 0 if in_front else num + 1)
    return {key: decay ** (num + 1 - number) for key, number in depth.items()}


def scale_rates(optimizer: Optimizer, scales: Mapping[int, float]) -> None:
    """Split every group by the scale of its weights; each part has that share of the group's learning rate."""
    for group in list(optimizer.param_groups):
        found = sorted({scales[id(weight)] for weight in group["params"]})
        rate, weights = group["lr"], group["params"]
        for place, scale in enumerate(found):
            own = [weight for weight in weights if scales[id(weight)] == scale]
            if place == 0:
                group["params"], group["lr"] = own, rate * scale
            else:
                optimizer.add_param_group({**group, "params": own, "lr": rate * scale})
