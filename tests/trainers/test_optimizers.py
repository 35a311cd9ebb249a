"""LARS, rates by depth, a weight decay that moves, clips of single weights, frozen prototypes, fixed positions."""

import math

import pytest
import torch
from tiny_vits import attach, images, vit
from transformers import TrainerControl, TrainerState, TrainingArguments

from latentlm.attach.state import latent_state
from latentlm.backbones import find_backbone
from latentlm.backbones.sine_positions import set_sine_positions, sines
from latentlm.components.heads import Prototypes
from latentlm.config.schema import ConfigError
from latentlm.experiment.training import check_training
from latentlm.trainers.lars import Lars
from latentlm.trainers.parameter_groups import depth_scales, scale_rates
from latentlm.trainers.per_step import ClipEachWeight, WeightDecaySchedule

TERM = "terms: {a: {kind: predict, source: {depth: 1/2, at: visible}, target: {kind: pixels, at: masked}, " \
       "predictor: transformer, loss: mse}}"  # fmt: skip


def test_lars_equals_a_loop_and_does_not_see_the_scale_of_a_gradient():
    draw = torch.Generator().manual_seed(0)
    start = [
        torch.randn(4, 3, generator=draw, dtype=torch.float64),
        torch.randn(5, generator=draw, dtype=torch.float64),
    ]
    weights = [torch.nn.Parameter(each.clone()) for each in start]
    optimizer = Lars(weights, lr=0.3, momentum=0.8, weight_decay=0.1, trust=0.02)
    want, momenta = [each.clone() for each in start], [torch.zeros_like(each) for each in start]
    for _ in range(3):
        for place, weight in enumerate(weights):
            weight.grad = torch.randn(weight.shape, generator=draw, dtype=torch.float64)
            move = weight.grad
            if move.ndim > 1:
                move = move + 0.1 * want[place]
                move = move * 0.02 * math.sqrt((want[place] ** 2).sum() / (move**2).sum())
            momenta[place] = 0.8 * momenta[place] + move
            want[place] = want[place] - 0.3 * momenta[place]
        optimizer.step()
    for weight, each in zip(weights, want, strict=True):
        torch.testing.assert_close(weight.detach(), each)
    found = []
    for scale in (1.0, 1000.0):
        weight = torch.nn.Parameter(start[0].clone())
        weight.grad = scale * torch.ones_like(weight)
        Lars([weight], lr=0.1).step()
        found.append(weight.detach())
    torch.testing.assert_close(*found)


def test_rates_fall_with_the_distance_to_the_top():
    model = attach(TERM)
    state = latent_state(model)
    scales = depth_scales(model, state.backbone, 0.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    scale_rates(optimizer, scales)
    rate = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    assert len(rate) == sum(1 for _ in model.parameters())
    assert rate[id(model.embeddings.cls_token)] == 0.5**5
    for number, block in enumerate(state.backbone.layers, 1):
        assert {rate[id(weight)] for weight in block.parameters()} == {0.5 ** (5 - number)}
    assert {rate[id(weight)] for weight in [*model.latent.parameters(), *model.layernorm.parameters()]} == {1.0}


def test_weight_decay_moves_along_half_a_cosine_and_single_weights_are_clipped():
    weight, bias = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([{"params": [weight], "weight_decay": 0.04}, {"params": [bias], "weight_decay": 0.0}])
    args, control, found = TrainingArguments(weight_decay=0.04, use_cpu=True), TrainerControl(), []
    for step in (0, 50, 100):
        state = TrainerState(global_step=step, max_steps=100)
        WeightDecaySchedule(0.4).on_step_begin(args, state, control, optimizer=optimizer)
        found.append(optimizer.param_groups[0]["weight_decay"])
    assert found == pytest.approx([0.04, 0.22, 0.4])
    assert optimizer.param_groups[1]["weight_decay"] == 0
    model = torch.nn.Module()
    model.a, model.b = weight, bias
    weight.grad, bias.grad = torch.full((3,), 10.0), torch.full((1,), 0.5)
    ClipEachWeight(3.0).on_pre_optimizer_step(args, TrainerState(), control, model=model)
    assert weight.grad.norm() == pytest.approx(3.0, rel=1e-4)
    assert bias.grad.item() == pytest.approx(0.5)


def test_prototypes_stay_still_for_the_first_steps():
    text = """
heads: {h: {kind: prototypes, dim: 8, hidden: 16, num_layers: 2, bottleneck: 4, frozen_steps: 2}}
terms: {a: {kind: predict, source: {depth: 1, at: cls_1, head: h}, predictor: identity,
    target: {kind: ema, tap: {depth: 1, at: cls_2, head: h}, normalize: none, momentum: 0.5, assign: center},
    loss: soft_cross_entropy}}
"""
    model, batch = attach(text), images(views=2)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    prototypes = model.latent.terms.heads["h"][-1]
    moved = []
    for _ in range(3):
        before = prototypes.weight.detach().clone()
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        moved.append(not torch.equal(before, prototypes.weight))
    assert moved == [False, False, True]
    with pytest.raises(ValueError, match="0 frozen_steps, or more"):
        Prototypes(8, frozen_steps=-1)


def test_positions_are_sines_and_not_trained():
    model = vit()
    set_sine_positions(model, find_backbone(model), (4, 4))
    table = model.embeddings.position_embeddings
    assert not table.requires_grad
    assert (table[:, 0] == 0).all()
    row, column, i = 3, 1, 2
    found = sines((4, 4), 32)[row * 4 + column]
    assert found[i] == pytest.approx(math.sin(row / 10_000 ** (i / 8)))
    assert found[16 + 8 + i] == pytest.approx(math.cos(column / 10_000 ** (i / 8)))
    other = vit("DINOv3ViT")
    with pytest.raises(ConfigError, match="DINOv3ViTModel has no learned positions to replace"):
        set_sine_positions(other, find_backbone(other), (4, 4))


def test_training_keys_that_contradict_each_other_are_told():
    assert check_training({"optim": "lars", "weight_decay": 0.1}, "supervised")["optim"] == "lars"
    for keys, told in [
        ({"max_weight_grad_norm": 3.0}, "set max_grad_norm: 0"),
        ({"final_weight_decay": 0.4}, "weight_decay is 0"),
        ({"layer_decay": 1.5}, "is a share"),
        ({"optim": "lar"}, "unknown value 'lar'"),
    ]:
        with pytest.raises(ConfigError, match=told):
            check_training(keys, "supervised")
