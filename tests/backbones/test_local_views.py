"""Local views at their own size: their states are the network's own, they train it, and teachers do not run on them."""

import numpy as np
import pytest
import torch
import yaml
from tiny_vits import vit

from latentlm import get_latent_model
from latentlm.config.schema import ConfigError
from latentlm.data.images import ImageCollator, Views

SIDE, SMALL = 4, 2  # patches along a side of both
TERMS = """
heads: {h: {kind: prototypes, dim: 8, hidden: 16, num_layers: 2, bottleneck: 4}}
terms:
  crops: {kind: predict, source: {depth: 1, norm: final, at: cls_1, head: h}, predictor: identity,
    target: {kind: ema, tap: {depth: 1, norm: final, at: cls_2, head: h}, normalize: none, momentum: 0.5,
      assign: center},
    loss: soft_cross_entropy}
"""
SETS = ("cls", "cls_1", "cls_2", "patches", "patches_1", "patches_2", "matched_patches_1", "matched_patches_2")


def collator(local_size=8, **more):
    views = Views(num=2, local=3, local_size=local_size, scale=(0.5, 1.0), local_scale=(0.1, 0.4), flip=0.5)
    return ImageCollator(views, None, 16, 4, 1, sets=SETS, taught=("cls_2",), **more)


def examples(num=3):
    draw = np.random.default_rng(0)
    return [{"image": draw.integers(0, 256, (1, 20, 20), dtype=np.uint8), "key": key} for key in range(num)]


def batch(**more):
    given = collator(**more)(examples())
    return {
        "pixel_values": given["pixel_values"].repeat(1, 2, 1, 1),
        "latent": {k: v.repeat(1, 2, 1, 1) if k == "local_pixels" else v for k, v in given["latent"].items()},
    }


def attach(family="ViT"):
    return get_latent_model(vit(family), {"lm_weight": 0, "monitor_every": 0, **yaml.safe_load(TERMS)}).train()


def read(model, given):
    seen = []
    hook = model.latent.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    loss = model(**given).loss
    hook.remove()
    return loss, seen[0]


@pytest.mark.parametrize("family", ["ViT", "Dinov2", "DINOv3ViT"])
def test_states_are_those_of_the_network_on_the_small_images(family):
    model, given = attach(family), batch()
    loss, context = read(model, given)
    plain = vit(family)
    inputs = {"interpolate_pos_encoding": True} if family == "ViT" else {}
    small = plain(given["latent"]["local_pixels"], output_hidden_states=True, **inputs).hidden_states[4]
    large = plain(given["pixel_values"], output_hidden_states=True).hidden_states[4]
    rows = []
    for states, count, views in ((large, SIDE**2, 2), (small, SMALL**2, 3)):
        front = states.shape[1] - count
        rows.append(torch.cat([states[:, :1], states[:, front:]], 1).reshape(3, views * (1 + count), -1))
    torch.testing.assert_close(context.view.states[4], torch.cat(rows, 1))
    assert context.view.segments[0].bincount().tolist() == [17, 17, 5, 5, 5]
    assert context.teacher_views["ema"].states[4][:, 34:].isnan().all()
    loss.backward()
    assert loss.isfinite()


def test_small_views_train_the_network():
    model, given = attach(), batch()
    grads = []
    for scale in (1.0, 2.0):
        model.zero_grad()
        other = given["latent"] | {"local_pixels": scale * given["latent"]["local_pixels"]}
        read(model, given | {"latent": other})[0].backward()
        grads.append(model.layers[0].mlp.fc1.weight.grad.clone())
    assert not torch.allclose(*grads)


def test_of_the_size_of_the_others_they_are_what_they_are_without_a_size():
    found = [read(attach(), batch(local_size=size))[0] for size in (16, None)]
    torch.testing.assert_close(*found)


def test_every_set_points_where_it_should():
    latent = collator()(examples())["latent"]
    starts = [0, 17, 34, 39, 44]
    assert latent["views"].tolist() == [0, 1]
    assert latent["cls"][0, 0].tolist() == starts
    pairs = [(w, o) for o in range(2) for w in range(5) if w != o]
    assert [(int(a), int(b)) for a, b in zip(latent["cls_1"][0, :, 0], latent["cls_2"][0, :, 0], strict=True)] == [
        (starts[w], starts[o]) for w, o in pairs
    ]
    counts = (latent["patches"][0] >= 0).sum(1).tolist()
    assert counts == [16, 16, 4, 4, 4]
    assert latent["patches"][0, 4, :4].tolist() == [45, 46, 47, 48]
    assert latent["patches_1"][0, :, 0].tolist() == [18, 1]
    assert latent["patches_2"][0, :, 0].tolist() == [1, 18]
    one, other = latent["matched_patches_1"], latent["matched_patches_2"]
    assert ((one >= 0) == (other >= 0)).all()
    for place, (w, o) in enumerate(pairs):
        there = one[:, place][one[:, place] >= 0]
        assert ((there > starts[w]) & (there <= starts[w] + (16 if w < 2 else 4))).all()
        there = other[:, place][other[:, place] >= 0]
        assert ((there > starts[o]) & (there <= starts[o] + 16)).all()


def test_what_cannot_be_is_told():
    with pytest.raises(ConfigError, match=r"data\.views\.local_size: 10 is no multiple of patch_size 4"):
        collator(local_size=10)
    views = Views(num=2, local=1, local_size=8)
    with pytest.raises(ConfigError, match="a copy of the network is read at cls, in local views as well"):
        ImageCollator(views, None, 16, 4, 1, taught=("cls",))
    video = attach()
    video.config.image_size = 16
    given = batch()
    given["latent"]["local_pixels"] = torch.zeros(9, 2, 6, 6)
    with pytest.raises(ValueError, match="6 x 6"):
        video(**given)
