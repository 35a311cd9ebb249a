"""Scenes: factors are even and independent, splits are disjoint, each factor changes its own place and no other."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from latentlm.data.images import Images, Scenes
from latentlm.data.images.scenes import CLASSES, LEVELS, RANGES

SCENES = Scenes(num_train=4000, num_test=500, blackboard=True)


@pytest.fixture(scope="module")
def train():
    return SCENES.pictures("train")


def test_factors_are_even(train):
    assert set(train.labels) == {name for level in LEVELS.values() for name in level}
    for name, num in CLASSES.items():
        share = np.bincount(train.labels[name], minlength=num) / 4000
        assert len(share) == num
        assert abs(share - 1 / num).max() < 5 * (0.25 / 4000) ** 0.5, name
    for name, (low, high) in RANGES.items():
        values = train.labels[name]
        assert values.min() >= low
        assert values.max() < high
        assert values.mean() == pytest.approx((low + high) / 2, abs=5 * (high - low) / 12**0.5 / 4000**0.5)
    assert train.labels["noise"].mean() == pytest.approx(0, abs=5 / 4000**0.5)
    assert train.labels["noise"].std() == pytest.approx(1, abs=0.06)


def test_no_factor_tells_another(train):
    free = [name for name in train.labels if name != "identity"]
    coded = []
    for name in free:
        values = train.labels[name]
        columns = np.eye(CLASSES[name])[values][:, 1:] if name in CLASSES else values[:, None]
        coded.append((columns - columns.mean(0)) / columns.std(0))
    for i, one in enumerate(coded):
        for j, other in enumerate(coded[:i]):
            if {free[i], free[j]} == {"body", "top"}:
                continue  # four of their sixteen combinations are held out
            assert abs(one.T @ other / 4000).max() < 5 / 4000**0.5, (free[i], free[j])


def test_held_out_animals_are_in_no_other_split(train):
    seen = set(zip(train.labels["body"], train.labels["top"], strict=True))
    tested = SCENES.sample("test")
    held_out = SCENES.sample("held_out")
    new = set(zip(held_out["body"], held_out["top"], strict=True))
    assert len(seen) == 12
    assert seen == set(zip(tested["body"], tested["top"], strict=True))
    assert new == {(0, 0), (1, 1), (2, 2), (3, 3)}
    assert not set(map(int, tested["key"])) & set(map(int, SCENES.sample("train")["key"]))


PLACES = {
    "count": (slice(0, 6), slice(0, 32)),
    "pile": (slice(25, 32), slice(0, 32)),
    "chalk": (slice(7, 10), slice(28, 31)),
    **dict.fromkeys(("fur", "stroke", "colour", "body", "top", "relation"), (slice(3, 25), slice(0, 32))),
    **dict.fromkeys(("x", "y", "scale"), (slice(3, 25), slice(0, 32))),
    **dict.fromkeys(("light", "ground"), (slice(0, 32), slice(0, 32))),
}


@pytest.mark.parametrize("name", [*CLASSES, *RANGES])
def test_a_factor_changes_its_own_place_and_no_other(name):
    factors = SCENES.sample("train", 100)
    if name in CLASSES:
        other = (factors[name] + 1) % CLASSES[name]
    else:
        low, high = RANGES[name]
        other = np.where(factors[name] > (low + high) / 2, low, high)
    difference = np.abs(SCENES.render(factors) - SCENES.render(SCENES.changed(factors, **{name: other})).astype(float))
    there = difference[(slice(None), slice(None), *PLACES[name])]
    assert difference.sum((1, 2, 3)) == pytest.approx(there.sum((1, 2, 3)))
    # far more than noise, which is the same in both
    assert (there.max((1, 2, 3)) > 12).all()


def test_moving_the_animal_moves_its_pixels():
    quiet = Scenes(noise=0.0)
    factors = quiet.sample("train", 50)
    factors = quiet.changed(factors, x=np.full(50, 12.0), fur=np.full(50, 3))
    moved = quiet.render(quiet.changed(factors, x=np.full(50, 15.0)))
    assert np.array_equal(quiet.render(factors)[:, :, 6:25, :28], moved[:, :, 6:25, 3:31])


def test_a_pile_has_as_many_dots_as_no_pile():
    quiet = Scenes(noise=0.0)
    factors = quiet.changed(quiet.sample("train", 300), light=np.ones(300), ground=np.zeros(300))
    ink = [
        (0.35 - quiet.render(quiet.changed(factors, pile=np.full(300, pile)))[:, :, 25:] / 255).sum((1, 2, 3)).mean()
        for pile in (0, 1)
    ]
    assert ink[0] == pytest.approx(ink[1], rel=0.15)  # dots of a heap touch


def test_the_noise_factor_is_in_the_pixels_and_nowhere_else():
    factors = SCENES.sample("train", 400)
    noisy, plain = SCENES.render(factors), Scenes(noise=0.0, blackboard=True).render(dict(factors))
    pattern = np.tile(np.random.default_rng(1).choice([-1.0, 1.0], (4, 4, 3)), (8, 8, 1)).transpose(2, 0, 1)
    along = ((noisy / 255 - plain / 255) * pattern).sum((1, 2, 3)) / pattern.size**0.5 / 0.05
    assert np.corrcoef(along, factors["noise"])[0, 1] > 0.98  # a few pixels are clipped
    again = Scenes(num_train=4000, blackboard=True, noise=0.2).sample("train", 400)
    assert all(np.array_equal(again[name], factors[name]) for name in again)


@pytest.mark.slow
def test_the_same_in_every_process(train):
    code = (
        "import hashlib; from latentlm.data.images import Scenes; "
        "print(hashlib.sha256(Scenes(num_train=50, blackboard=True).pictures('train').images.tobytes()).hexdigest())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert told == hashlib.sha256(train.images[:50].tobytes()).hexdigest()
    assert not np.array_equal(Scenes(num_train=50, seed=1).pictures("train").images, train.images[:50])


def test_a_recipe_can_name_them():
    dataset = Images(Scenes(num_train=10, num_test=1)).dataset()
    assert len(dataset) == 10
    assert "chalk" not in dataset.images.labels
    with pytest.raises(ValueError, match=r"^num_train, num_test, noise, seed"):
        Scenes(num_train=0)
