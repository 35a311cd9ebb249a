"""Vision evaluation: readouts against naive ones and planted truth, pixels, and a whole run over a tiny ViT."""

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from latentlm_evals.models.image_encoder import ImageEncoder
from latentlm_evals.probes.frozen_features import attentive_probe, knn, linear_probe, ridge
from latentlm_evals.statistics.scores import accuracy, r_squared, skill
from latentlm_evals.vision import Options, evaluate, table
from latentlm_evals.vision.factors import acts, by_level, change, decode, fractures, movable
from latentlm_evals.vision.pixels import decoded_pixels, images_of, linear_pixels, patches_of
from rich.console import Console
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from latentlm.config.schema import ConfigError
from latentlm.data.images import Digits, FashionMnist, Scenes

FASHION_MNIST = Path(os.environ.get("LATENTLM_FASHION_MNIST", "fashion-mnist"))  # the four idx files
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _clusters(num, dim=16, classes=4, spread=1.0):
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(7)) * 2
    labels = torch.arange(num) % classes
    return centres[labels] + spread * torch.randn(num, dim), labels


def test_knn_is_the_naive_vote():
    train, labels = _clusters(60, spread=4.0)
    test, _ = _clusters(15, spread=4.0)
    found = knn(train, labels, test, k=7, temperature=0.1)
    for i, row in enumerate(test.double()):
        cosine = (train.double() @ row) / train.double().norm(dim=1) / row.norm()
        near = cosine.argsort(descending=True)[:7]
        votes = [sum(float((cosine[j] / 0.1).exp()) for j in near if labels[j] == c) for c in range(4)]
        assert int(found[i]) == int(np.argmax(votes))


@pytest.mark.slow
@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="no idx files here (LATENTLM_FASHION_MNIST)")
def test_neighbours_of_fashion_mnist_give_the_known_floors():
    (train, labels), (test, truth) = (
        (torch.from_numpy(each.images).flatten(1).float() / 255, torch.from_numpy(each.labels["label"]).long())
        for each in (
            FashionMnist(str(FASHION_MNIST)).pictures("train"),
            FashionMnist(str(FASHION_MNIST)).pictures("test"),
        )
    )

    def right(keys: torch.Tensor, asked: torch.Tensor) -> float:
        return 100 * float((knn(keys, labels, asked) == truth).float().mean())

    assert right(train, test) == pytest.approx(84.59, abs=0.005)
    pca = PCA(64, random_state=0).fit(train)
    projected = [torch.from_numpy(pca.transform(each)) for each in (train, test)]
    assert right(*projected) == pytest.approx(86.25, abs=0.1)  # scikit-learn's solver is a random one here


def test_ridge_finds_a_planted_direction_in_tall_and_wide_features_and_nothing_in_noise():
    for num, dim in ((300, 20), (200, 300)):
        x, weight = torch.randn(2 * num, dim), torch.randn(dim, 1) / dim**0.5
        y = torch.cat([x @ weight, torch.randn(2 * num, 1)], 1)  # one target is in the features, the other is not
        guess = ridge(x[:num], y[:num])(x[num:])
        assert r_squared(guess[:, :1], y[num:, :1]) > (0.99 if num > dim else 0.4)
        assert -0.5 < r_squared(guess[:, 1:], y[num:, 1:]) < 0.1


def ill_conditioned(num, dim=96, classes=10):
    """Classes in directions whose scale falls by six orders of magnitude, mixed so that no single feature is small."""
    draw = torch.Generator().manual_seed(0)
    scales, turn = torch.logspace(0, -6, dim).double(), torch.randn(dim, dim, generator=draw).double()
    centres = torch.randn(classes, dim, generator=draw).double()
    labels = torch.randint(0, classes, (num,), generator=draw)
    return ((centres[labels] + 2.5 * torch.randn(num, dim, generator=draw).double()) * scales @ turn).float(), labels


def test_the_linear_probe_has_converged_where_features_are_ill_conditioned():
    """Within a point of the best of scikit-learn's own fits: ten epochs of SGD were 14 points below it."""
    x, y = ill_conditioned(3000)
    train, labels, test, truth = x[:1500], y[:1500], x[1500:], y[1500:]
    scale = StandardScaler().fit(train.double())
    theirs = max(
        LogisticRegression(C=strength, max_iter=5000)
        .fit(scale.transform(train.double()), labels)
        .score(scale.transform(test.double()), truth)
        for strength in (1e-2, 1e-1, 1.0, 10.0)
    )
    assert accuracy(linear_probe(train, labels, test), truth) > theirs - 0.01


@pytest.mark.parametrize("probe", [linear_probe, knn])
def test_probes_find_classes_and_nothing_in_noise(probe):
    train, labels = _clusters(800)
    test, truth = _clusters(400)
    assert accuracy(probe(train, labels, test), truth) > 0.95
    assert abs(skill(probe(torch.randn(800, 16), labels, torch.randn(400, 16)), truth)) < 0.15


def test_an_attentive_probe_finds_the_one_patch_that_tells():
    def images(num):
        patches, labels = torch.randn(num, 25, 16), torch.randint(0, 4, (num,))
        place = torch.randint(0, 25, (num,))
        patches[torch.arange(num), place] = 0
        patches[torch.arange(num), place, labels] = 6.0
        patches[torch.arange(num), place, 15] = 8.0  # here it is
        return patches, labels

    (train, labels), (test, truth) = images(1500), images(400)
    attentive = accuracy(attentive_probe(train, labels, test, epochs=12), truth)
    mean = accuracy(linear_probe(train.mean(1), labels, test.mean(1)), truth)
    assert attentive > 0.9
    assert attentive > mean + 0.1


def test_planted_factors_are_decoded_and_absent_ones_are_not():
    def planted(split):
        factors = Scenes().sample(split, 1500)
        features = torch.randn(1500, 32)
        features[:, :4] += 4 * torch.eye(4)[torch.from_numpy(factors["body"])]
        features[:, 5] = torch.from_numpy(factors["x"])
        names = ("body", "fur", "x", "y")
        return features, {name: factors[name] for name in names}

    (train, labels), (test, truth) = planted("train"), planted("test")
    (scores,) = decode(train, labels, [(test, truth)])
    assert scores["body"] > 0.9
    assert scores["x"] > 0.99
    assert abs(scores["fur"]) < 0.1
    assert abs(scores["y"]) < 0.1
    levels = by_level(scores)
    assert levels["detail"] == pytest.approx((scores["fur"] + scores["x"] + scores["y"]) / 3)
    assert "later" not in levels


def test_fracture_and_change_know_planted_truth():
    factors = Scenes().sample("train", 2000)
    body, fur = torch.from_numpy(factors["body"]), torch.from_numpy(factors["fur"])
    one = torch.randn(2000, 24) * 0.3
    broken = one.clone()
    one[:, :4] += 3 * torch.eye(4)[body]
    broken[torch.arange(2000)[:, None], 4 * fur[:, None] + torch.arange(4)] += 3 * torch.eye(4)[body]
    assert fractures(one, factors)["fur"] < 0.2
    assert fractures(broken, factors)["fur"] > 0.8
    before = torch.randn(200, 8)
    turn = torch.linalg.qr(torch.randn(8, 8)).Q
    assert acts(before, before @ turn)["eq_gain"] > 0.99
    assert abs(acts(before, torch.randn(200, 8))["h@1"]) < 0.1


@pytest.mark.parametrize("name", ["shift", "grow", "recolour", "add_marble"])
def test_a_change_stays_in_range_and_can_be_seen(name):
    scenes = Scenes()
    factors = movable(scenes.sample("test", 100), name)
    after = scenes.render(change(scenes, factors, name))
    assert (scenes.render(factors) != after).any((1, 2, 3)).all()
    assert len(after) > 30


def test_pixels_round_trip_and_are_decoded():
    images = torch.rand(60, 3, 8, 8)
    pixels = patches_of(images, 4)
    assert torch.equal(images_of(pixels, 3, 4), images)
    assert torch.equal(pixels[0, 5].view(3, 2, 2), images[0, :, 2:4, 2:4])
    states = pixels @ torch.randn(12, 16)  # as a patch embedding: everything is there
    score, guess = linear_pixels(states[:40], pixels[:40], states[40:], pixels[40:])
    assert score > 0.99
    assert guess.shape == pixels[40:].shape
    assert decoded_pixels(states[:40], pixels[:40], states[40:], pixels[40:], steps=100)[0] > 0.3
    nothing = torch.randn(60, 16, 16)
    assert linear_pixels(nothing[:40], pixels[:40], nothing[40:], pixels[40:])[0] < 0.1


QUICK = Options(num_train=300, num_test=60, pixels=20, decoder=5)


@pytest.mark.slow
def test_a_whole_evaluation_of_scenes():
    size = {"height": 32, "width": 32}
    processor = ViTImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    network = ViTModel(ViTConfig(**SMALL, image_size=32, patch_size=8, num_channels=3))
    encoder = ImageEncoder("tiny", network, processor)
    scored = evaluate(encoder, Scenes(blackboard=True), QUICK)
    result = scored.to_lm_eval()
    names = [f"{kind} {depth}" for kind in ("depth", "random") for depth in range(3)] + ["raw pixels", "pca 64"]
    assert set(result["results"]) == {f"vision/{name}" for name in [*names, "chance"]}
    assert result["results"]["vision/chance"]["linear,none"] < 0.2
    assert json.loads(json.dumps(result, allow_nan=False))["results"] == result["results"]
    for name in names:
        found = result["results"][f"vision/{name}"]
        for key in ("knn", "linear", "factor/noise", "level/semantic", "unseen/top", "later/100"):
            assert np.isfinite(found[f"{key},none"]), (name, key)
    top = result["results"]["vision/depth 2"]
    for key in ("attentive", "pixels/linear", "pixels/decoder", "change/shift", "fracture/shuffled"):
        assert np.isfinite(top[f"{key},none"])
    assert "attentive,none" in result["results"]["vision/random 2"]
    told = io.StringIO()
    Console(width=100, file=told).print(*table({"a": scored}))
    assert "…" not in told.getvalue()  # a number that is cut off says nothing


def test_a_collapsed_network_is_told_by_name():
    network = ViTModel(ViTConfig(**SMALL, image_size=32, patch_size=16, num_channels=3))
    for weight in network.parameters():
        torch.nn.init.zeros_(weight)
    processor = ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    options = replace(QUICK, floors=False, attentive=False, pixels=0)
    scored = evaluate(ImageEncoder("dead", network, processor), Scenes(), options)
    result = scored.to_lm_eval()
    top = result["results"]["vision/depth 2"]
    assert any(line.startswith("collapsed: ") for line in result["warnings"])
    assert "change/shift,none" not in top
    assert "fracture/fur,none" not in top
    assert top["factor/body,none"] < 0.1
    assert "collapsed" in table({"a": scored})[-1].caption


def test_a_folder_is_scored_with_pictures(tmp_path):
    from latentlm_evals.vision import run

    ViTModel(ViTConfig(**SMALL, image_size=8, patch_size=2, num_channels=1)).save_pretrained(tmp_path / "vit")
    out = str(tmp_path / "a.json")
    options = Options(source=Digits(), num_train=300, num_test=100, pixels=40, decoder=0, finetune=1, out=out)
    result = run(str(tmp_path / "vit"), options).to_lm_eval()
    assert json.loads((tmp_path / "a.json").read_text())["results"] == result["results"]
    assert {path.name for path in tmp_path.glob("*.png")} == {"vision_reconstructions.png", "vision_neighbours.png"}
    assert result["results"]["vision/raw pixels"]["knn,none"] > 0.85
    assert 0 < result["results"]["vision/depth 2"]["finetune,none"] < 1
    with pytest.raises(ConfigError, match=r"source: .* name some"):
        run(str(tmp_path / "vit"), Options())
    with pytest.raises(ValueError, match=r"^num_train"):
        Options(num_train=1)
