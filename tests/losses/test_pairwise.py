"""Pair losses against loops written from their equations, in float64 and, for accuracy, in bfloat16."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tolerance import assert_as_accurate

from latentlm.losses import Cosine, Kl, Mse, SmoothL1, SoftCrossEntropy


def mse(p, t):
    return sum((a - b) * (a - b) for a, b in zip(p, t, strict=True)) / len(p)


def smooth_l1(p, t, beta):
    total = 0 * p[0]
    for a, b in zip(p, t, strict=True):
        error = (a - b).abs()
        total = total + (error * error / (2 * beta) if error < beta else error - beta / 2)
    return total / len(p)


def cosine(p, t):
    dot = sum(a * b for a, b in zip(p, t, strict=True))
    return 1 - dot / (sum(a * a for a in p).sqrt() * sum(b * b for b in t).sqrt())


def softmax(x, temperature):
    exps = [(a / temperature).exp() for a in x]
    return [e / sum(exps) for e in exps]


def soft_cross_entropy(p, t, temperature, target_temperature):
    mine, wanted = softmax(p, temperature), softmax(t, target_temperature)
    return -sum(w * m.log() for w, m in zip(wanted, mine, strict=True))


def kl(p, t, temperature):
    mine, wanted = softmax(p, temperature), softmax(t, temperature)
    return sum(w * (w.log() - m.log()) for w, m in zip(wanted, mine, strict=True))


def kl_top(p, t, k):
    mine, wanted = softmax(p, 1.0), softmax(t, 1.0)
    best = sorted(range(len(wanted)), key=lambda i: -float(wanted[i]))
    total, rest = 0, best[k:]
    for i in best[:k]:
        total = total + wanted[i] * (wanted[i].log() - mine[i].log())
    mass, other = sum(wanted[i] for i in rest), sum(mine[i] for i in rest)
    return total + mass * (mass.log() - other.log())


CASES = [
    (Mse(), mse),
    (SmoothL1(), lambda p, t: smooth_l1(p, t, 1.0)),
    (SmoothL1(beta=0.3), lambda p, t: smooth_l1(p, t, 0.3)),
    (Cosine(), cosine),
    (SoftCrossEntropy(), lambda p, t: soft_cross_entropy(p, t, 1.0, 1.0)),
    (SoftCrossEntropy(0.5, 0.2), lambda p, t: soft_cross_entropy(p, t, 0.5, 0.2)),
    (Kl(), lambda p, t: kl(p, t, 1.0)),
    (Kl(temperature=2.0), lambda p, t: kl(p, t, 2.0)),
    (Kl(top_k=2), lambda p, t: kl_top(p, t, 2)),
]
cases = pytest.mark.parametrize(("part", "row"), CASES, ids=[repr(part) for part, _ in CASES])


def over_rows(row):
    """[*b d], [*b d] -> [*b] by a loop over rows."""

    def naive(pred, target):
        flat = zip(pred.flatten(0, -2), target.flatten(0, -2), strict=True)
        return torch.stack([row(p, t) for p, t in flat]).view(pred.shape[:-1])

    return naive


def draw(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]


@cases
def test_matches_the_equation(part, row):
    pred, target = draw(0, 2, 3, 5)
    torch.testing.assert_close(part(pred, target), over_rows(row)(pred, target), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        part(pred.float(), target.float()).double(), over_rows(row)(pred, target), rtol=1e-5, atol=1e-6
    )


@cases
def test_as_accurate_as_the_formula_in_bfloat16(part, row):
    assert_as_accurate(part, over_rows(row), *draw(1, 2, 3, 16))


def test_known_answers():
    p, t = torch.tensor([3.0, 0.5]), torch.tensor([1.0, 0.0])
    assert Mse()(p, t).item() == pytest.approx((4 + 0.25) / 2)
    assert SmoothL1()(p, t).item() == pytest.approx((1.5 + 0.125) / 2)
    assert SmoothL1(beta=0.0)(p, t).item() == pytest.approx(1.25)
    east, north = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 7.0])
    assert [Cosine()(east, x).item() for x in (5 * east, north, -east)] == pytest.approx([0, 1, 2])
    assert Cosine()(0 * east, north).item() == 1
    uniform = torch.zeros(8)
    assert SoftCrossEntropy()(torch.zeros(8), uniform).item() == pytest.approx(math.log(8))
    certain = torch.tensor([50.0, 0, 0, 0])
    assert Kl()(torch.zeros(4), certain).item() == pytest.approx(math.log(4))


def test_torch_equivalents():
    pred, target = draw(2, 4, 6)
    torch.testing.assert_close(Mse()(pred, target).mean(), F.mse_loss(pred, target))
    torch.testing.assert_close(
        Kl()(pred, target).mean(),
        F.kl_div(pred.log_softmax(-1), target.log_softmax(-1), log_target=True, reduction="batchmean"),
    )
    entropy = torch.distributions.Categorical(logits=target).entropy()
    torch.testing.assert_close(Kl()(pred, target), SoftCrossEntropy()(pred, target) - entropy)


def test_fewer_classes_are_at_most_the_whole_divergence():
    pred, target = draw(5, 7, 9)
    parts = [Kl(top_k=k)(pred, target) for k in (1, 4, 8, 9, 100)]
    for less, more in pairwise(parts):
        assert (less <= more + 1e-12).all()
    torch.testing.assert_close(parts[-1], Kl()(pred, target))


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_cosine_ignores_lengths(seed, a, b):
    pred, target = draw(seed, 3, 5)
    torch.testing.assert_close(Cosine()(a * pred, b * target), Cosine()(pred, target))


@given(st.integers(0, 10**6))
def test_joint_rotation_changes_nothing(seed):
    pred, target = draw(seed, 4, 5)
    rotation = torch.linalg.qr(draw(seed + 1, 5, 5)[0]).Q
    for part in (Mse(), Cosine()):
        torch.testing.assert_close(part(pred @ rotation, target @ rotation), part(pred, target))


@given(st.integers(0, 10**6), st.floats(0, 0.99))
def test_falls_on_the_way_to_the_target(seed, way):
    pred, target = draw(seed, 4, 5)
    further = pred + (way + 0.01) * (target - pred)
    nearer = pred + way * (target - pred)
    for part in (Mse(), SmoothL1(), Kl()):
        assert (part(further, target) <= part(nearer, target) + 1e-12).all()


def test_bad_options_are_refused():
    for bad in (
        lambda: SmoothL1(beta=-1.0),
        lambda: Kl(temperature=0.0),
        lambda: Kl(top_k=0),
        lambda: SoftCrossEntropy(1.0, 0.0),
    ):
        with pytest.raises(ValueError, match="must be"):
            bad()
