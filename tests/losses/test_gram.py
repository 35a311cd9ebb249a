"""Losses on the positions of an anchor against loops over them, closed forms, and what they must not see."""

import pytest
import torch
from test_variance_covariance_koleo import draw
from tolerance import assert_as_accurate

from latentlm.losses import Cka, Gram, Nearest

MASK = torch.tensor([[True, True, True, False], [True, True, True, True], [False, True, True, False]])


def naive(mask):
    def cosine(x, y):
        return (x * y).sum() / (x.square().sum().sqrt() * y.square().sum().sqrt())

    def run(pred, target):
        values = torch.zeros(mask.shape, dtype=pred.dtype)
        for a, row in enumerate(mask):
            places = row.nonzero().flatten().tolist()
            for i in places:
                gaps = [(cosine(pred[a, i], pred[a, j]) - cosine(target[a, i], target[a, j])) ** 2 for j in places]
                values[a, i] = sum(gaps) / len(places)
        return values

    return run


def test_matches_the_equation():
    pred, target = draw(0, 3, 4, 5), draw(1, 3, 4, 6)  # widths may differ
    torch.testing.assert_close(Gram()(pred, target, MASK), naive(MASK)(pred, target), rtol=1e-10, atol=1e-12)
    assert_as_accurate(lambda p, t: Gram()(p, t, MASK), naive(MASK), pred, target)


def test_masked_positions_reach_neither_value_nor_gradient():
    pred, target = draw(0, 3, 4, 5), draw(1, 3, 4, 5)
    expected = Gram()(pred, target, MASK)
    pred[~MASK], target[~MASK] = torch.nan, torch.inf
    pred.requires_grad_()
    value = Gram()(pred, target, MASK)
    torch.testing.assert_close(value, expected, rtol=0, atol=0)
    value.sum().backward()
    assert pred.grad is not None
    assert pred.grad[~MASK].abs().sum() == 0
    assert (pred.grad[MASK].abs().sum(-1) > 0).all()
    nothing = Gram()(pred, target, torch.zeros_like(MASK))
    assert nothing.abs().sum() == 0


def test_known_answers_and_blind_spots():
    every = torch.ones(1, 9, dtype=torch.bool)
    apart, same = torch.eye(9, dtype=torch.float64)[None], torch.ones(1, 9, 9, dtype=torch.float64)
    assert Gram()(same, apart, every).mean().item() == pytest.approx(1 - 1 / 9)  # .888889
    x = draw(2, 1, 9, 5)
    rotation = torch.linalg.qr(draw(3, 5, 5)).Q
    lengths = torch.linspace(0.1, 9, 9, dtype=torch.float64)[None, :, None]
    assert Gram()(x, lengths * (x @ rotation), every).max() < 1e-30
    opposite = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    assert Gram()(opposite, torch.ones(1, 2, 2), every[:, :2]).max().item() == pytest.approx(2)


def naive_cka(pred, target):
    values = torch.zeros(MASK.shape, dtype=pred.dtype)
    for a, row in enumerate(MASK):
        places = row.nonzero().flatten()
        num = len(places)
        centre = torch.eye(num, dtype=pred.dtype) - 1 / num
        one, other = (centre @ (each[a, places] @ each[a, places].T) @ centre for each in (pred, target))
        alike = (one * other).sum() / (one.square().sum().sqrt() * other.square().sum().sqrt())
        values[a, places] = 1 - alike
    return values


def test_cka_is_the_equation_and_blind_to_rotation_scale_and_place():
    pred, target = draw(0, 3, 4, 5), draw(1, 3, 4, 6)
    torch.testing.assert_close(Cka()(pred, target, MASK), naive_cka(pred, target), rtol=1e-10, atol=1e-12)
    turned = torch.linalg.qr(draw(2, 5, 5)).Q
    assert Cka()(pred, 3 * pred @ turned + 7, MASK).abs().max() < 1e-12
    lone = torch.zeros(1, 4, dtype=torch.bool)
    lone[0, 2] = True
    assert Cka()(pred[:1], target[:1], lone).sum() == 0


def test_nearest_keeps_the_closest_pairs_and_a_permuted_copy_costs_nothing():
    pred, target = draw(0, 3, 4, 5), draw(1, 3, 4, 5)
    want = torch.zeros(MASK.shape, dtype=pred.dtype)
    for a, row in enumerate(MASK):
        places = row.nonzero().flatten().tolist()
        apart = {i: min(((pred[a, i] - target[a, j]).square().sum(), j) for j in places) for i in places}
        kept = sorted(places, key=lambda i, apart=apart: apart[i][0])[:2]
        for i in kept:
            want[a, i] = apart[i][0] / 5 * len(places) / len(kept)
    torch.testing.assert_close(Nearest(num=2)(pred, target, MASK), want)
    whole = torch.ones_like(MASK)
    assert Nearest()(pred, pred[:, [2, 0, 3, 1]], whole).sum() == 0
    with pytest.raises(ValueError, match=r"Nearest\.num is 0; it must be 1 or more"):
        Nearest(num=0)


@pytest.mark.parametrize("part", [Cka(), Nearest(num=2)], ids=repr)
def test_what_is_masked_reaches_neither_value_nor_gradient_of_the_others(part):
    pred, target = draw(0, 3, 4, 5), draw(1, 3, 4, 5)
    expected = part(pred, target, MASK)
    pred[~MASK], target[~MASK] = torch.nan, torch.inf
    pred.requires_grad_()
    value = part(pred, target, MASK)
    torch.testing.assert_close(value, expected, rtol=0, atol=0)
    value.sum().backward()
    assert pred.grad[~MASK].abs().sum() == 0
    assert pred.grad.isfinite().all()
