"""Masks: counts, what is predicted is never seen, every patch has its turn, impossible settings are told."""

import numpy as np
import pytest
import torch

from latentlm.data.counter_rng import example_keys
from latentlm.data.images import Blocks, InverseBlock, Random

KEYS = example_keys(0, 0, np.arange(2000))
MASKS = [
    Random(),
    Random((0.1, 0.5), probability=0.5, drop=False),
    Blocks(),
    Blocks(num=1, scale=(0.3, 0.3), context=(1.0, 1.0)),
    InverseBlock(),
    InverseBlock(ratio=0.8, predict=0.2),
]


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_no_predicted_patch_is_seen(mask):
    for side in (4, 7, 8):
        seen, blocks = mask(KEYS, side)
        assert not (seen & blocks.any(1)).any()
        assert seen.any(1).all()


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_an_example_is_masked_alike_in_every_batch(mask):
    seen, blocks = mask(KEYS, 7)
    for part in (slice(3, 4), slice(100, 150)):
        some, other = mask(KEYS[part], 7)
        assert torch.equal(some, seen[part])
        assert torch.equal(other, blocks[part])
    again, _ = mask(example_keys(0, 1, np.arange(2000)), 7)
    assert not torch.equal(again, seen)


def test_random_masks_hide_the_exact_share_and_every_patch_equally_often():
    seen, blocks = Random(0.75)(KEYS, 7)
    assert (seen.sum(1) == 12).all()
    assert torch.equal(seen, ~blocks[:, 0])
    often = seen.float().mean(0)
    assert (often - 12 / 49).abs().max() < 5 * (12 / 49 * 37 / 49 / 2000) ** 0.5


def test_a_range_and_a_probability():
    _, blocks = Random((0.1, 0.5), probability=0.5)(KEYS, 8)
    num = blocks[:, 0].sum(1)
    assert abs((num > 0).float().mean() - 0.5) < 5 * (0.25 / 2000) ** 0.5
    assert set(num[num > 0].tolist()) == set(range(6, 33))


def test_blocks_are_rectangles_of_the_sizes_asked_for():
    _, blocks = Blocks(scale=(0.15, 0.2))(KEYS, 8)
    grid = blocks.unflatten(-1, (8, 8)).flatten(0, 1)
    height, width = grid.any(2).sum(1), grid.any(1).sum(1)
    assert torch.equal(grid.sum((1, 2)), height * width)
    # 9.6 to 12.8 patches of aspect 0.75 to 1.5: sides of sqrt(9.6 x 0.67) = 2.5 to sqrt(12.8 x 1.5) = 4.4, rounded
    assert set(height.tolist()) == set(width.tolist()) == {3, 4}


def test_a_block_leaves_its_context_and_nothing_else():
    seen, blocks = Blocks(num=1, context=(1.0, 1.0))(KEYS, 8)
    assert torch.equal(seen, ~blocks[:, 0])


def test_an_inverse_block_is_one_block_up_to_the_roll():
    seen, blocks = InverseBlock(ratio=0.75, aspect=(1.0, 1.0))(KEYS, 8)
    assert (seen.sum(1) == 16).all()
    assert torch.equal(seen, ~blocks[:, 0])
    grid = seen.unflatten(1, (8, 8))
    assert (grid.any(2).sum(1) == 4).all()
    assert (grid.any(1).sum(1) == 4).all()
    line = grid.any(2)
    assert ((line != line.roll(1, 1)).sum(1) == 2).all()  # one run of rows, around the border
    assert (line[:, 0] & line[:, -1]).any()  # some do cross it
    often = seen.float().mean(0)
    assert (often - 0.25).abs().max() < 5 * (0.25 * 0.75 / 2000) ** 0.5


def test_only_a_share_of_the_hidden_patches_is_predicted():
    seen, blocks = InverseBlock(ratio=0.65, predict=0.05)(KEYS, 8)
    assert (seen.sum(1) == 64 - 42).all()
    assert (blocks.sum((1, 2)) == 3).all()  # 2.1, rounded up


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Random(0.1)(KEYS, 2), r"^mask.ratio: hides 0 to 0 of 4 patches; leave at least one"),
        (lambda: Random(0.99)(KEYS, 4), r"^mask.ratio: hides 16 to 16 of 16 patches"),
        (lambda: Random(0.5)(KEYS, 1), "of 1 patches"),
        (lambda: Blocks(num=8, scale=(0.6, 0.7))(KEYS, 7), r"^mask: blocks leave fewer than 4 of 49 patches"),
        (lambda: Random(1.0), r"^ratio: \[1.0, 1.0\]; give numbers above 0 and below 1"),
        (lambda: Random((0.5, 0.1)), "^ratio"),
        (lambda: Random(probability=0.0), "^probability"),
        (lambda: Blocks(num=0), "^num, min_seen"),
        (lambda: Blocks(ratio=(0.0, 1.0)), "^ratio"),
        (lambda: InverseBlock(aspect=(2.0, 1.0)), "^aspect"),
        (lambda: InverseBlock(predict=0.0), "^predict"),
    ],
)
def test_impossible_masks_are_told_in_one_line(make, line):
    with pytest.raises(ValueError, match=line) as error:
        make()
    assert "\n" not in str(error.value)
