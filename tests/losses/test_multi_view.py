"""Invariance, BarlowTwins and Mmcr against loops and closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_variance_covariance_koleo import HADAMARD, draw
from tolerance import assert_as_accurate

from latentlm.losses import BarlowTwins, Invariance, Mmcr, Mse


def naive_invariance(z, num_global=None):
    views, samples, dim = z.shape
    total = 0 * z[0, 0, 0]
    for m in range(samples):
        for d in range(dim):
            center = sum(z[v, m, d] for v in range(num_global or views)) / (num_global or views)
            total = total + sum((z[v, m, d] - center) ** 2 for v in range(views))
    return total / (views * samples * dim)


def naive_barlow(z, redundancy=5e-3, std="biased", eps=1e-5):
    views, samples, dim = z.shape
    unit = torch.zeros_like(z)
    for v in range(views):
        for d in range(dim):
            mean = sum(z[v, :, d]) / samples
            squares = sum((x - mean) ** 2 for x in z[v, :, d])
            variance = squares / (samples if std == "biased" else samples - 1)
            unit[v, :, d] = (z[v, :, d] - mean) / (variance + eps).sqrt()
    values = []
    for one in range(views):
        for other in range(one):
            total = 0 * z[0, 0, 0]
            for i in range(dim):
                for j in range(dim):
                    c = sum(unit[one, m, i] * unit[other, m, j] for m in range(samples)) / samples
                    total = total + ((1 - c) ** 2 if i == j else redundancy * c**2)
            values.append(total)
    return torch.stack(values).mean()


def nuclear(x):
    """Sum of singular values by way of the eigenvalues of the smaller Gram matrix."""
    gram = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    return torch.linalg.eigvalsh(gram.double()).clamp(min=0).sqrt().sum()


def naive_mmcr(z, weight_views=5e-3):
    unit = torch.stack([torch.stack([row / row.square().sum().sqrt() for row in view]) for view in z])
    within = sum(nuclear(unit[:, m]) for m in range(z.shape[1])) / z.shape[1]
    return weight_views * within - nuclear(sum(unit) / len(unit))


CASES = [
    (Invariance(), naive_invariance),
    (Invariance(num_global=2), lambda z: naive_invariance(z, 2)),
    (BarlowTwins(), naive_barlow),
    (BarlowTwins(0.1, std="unbiased", eps=1e-3), lambda z: naive_barlow(z, 0.1, "unbiased", 1e-3)),
    (Mmcr(), naive_mmcr),
    (Mmcr(weight_views=1.0), lambda z: naive_mmcr(z, 1.0)),
]


@pytest.mark.parametrize(("part", "naive"), CASES, ids=[repr(part) for part, _ in CASES])
def test_matches_the_equation(part, naive):
    z = 0.8 * draw(0, 3, 6, 4) + 1
    torch.testing.assert_close(part(z, 0), naive(z), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(part(z.float(), 0).double(), naive(z), rtol=1e-4, atol=1e-6)
    if not isinstance(part, Mmcr):  # its loop takes a square root of eigenvalues, which has no bf16 version
        assert_as_accurate(lambda x: part(x, 0), naive, z)


def test_two_views_are_a_quarter_of_their_squared_error():
    z = draw(1, 2, 6, 4)
    torch.testing.assert_close(Invariance()(z, 0), Mse()(z[0], z[1]).mean() / 4)
    torch.testing.assert_close(Invariance(num_global=1)(z, 0), Mse()(z[0], z[1]).mean() / 2)
    assert Invariance()(z[:1].expand(2, 6, 4), 0) == 0


def test_known_answers_of_barlow_twins():
    def value(one, other, **options):
        return BarlowTwins(**options)(torch.stack([one, other]), 0).item()

    copies = HADAMARD[:, :1].expand(8, 4)
    assert value(HADAMARD, HADAMARD) == pytest.approx(4e-10, abs=1e-11)
    assert value(HADAMARD, -HADAMARD) == pytest.approx(15.99984, abs=1e-6)
    assert value(copies, copies) == pytest.approx(0.0599988, abs=1e-7)
    assert value(HADAMARD, -HADAMARD, eps=1e-12) == pytest.approx(16, abs=1e-9)
    assert value(copies, copies, eps=1e-12) == pytest.approx(0.06, abs=1e-9)
    # unbiased: C_ii = 7/8 for equal views
    assert value(HADAMARD, HADAMARD, std="unbiased", eps=1e-12) == pytest.approx(4 / 64, abs=1e-9)
    collapsed = torch.ones(8, 4, dtype=torch.float64)
    assert value(collapsed, collapsed) == 4


def test_known_answers_of_manifold_capacity():
    def value(centroids):
        return -Mmcr(weight_views=0.0)(centroids.expand(2, *centroids.shape), 0).item()

    assert value(torch.eye(8, 16, dtype=torch.float64)) == pytest.approx(8)
    assert value(torch.ones(8, 16, dtype=torch.float64)) == pytest.approx(2.828427, abs=1e-6)
    frame = torch.cat([torch.eye(8), -torch.eye(8)]).double()  # tight: 16 in 8 dimensions, the bound
    assert value(frame) == pytest.approx(math.sqrt(16 * 8), abs=1e-6)  # 11.313708
    # identical views of a sample: one singular value, sqrt(g)
    eye = torch.eye(8, dtype=torch.float64).expand(2, 8, 8)
    assert Mmcr(weight_views=1.0)(eye, 0).item() == pytest.approx(-8 + math.sqrt(2))
    scaled = torch.linspace(1, 9, 8, dtype=torch.float64)[:, None] * eye
    assert Mmcr(normalize=False)(scaled, 0) < -8
    torch.testing.assert_close(Mmcr()(scaled, 0), Mmcr()(eye, 0))


def test_collapse_has_finite_gradients():
    for part in (Invariance(), BarlowTwins(), Mmcr()):
        z = torch.ones(2, 8, 4, dtype=torch.float64, requires_grad=True)
        part(z, 0).backward()
        assert z.grad is not None
        assert z.grad.isfinite().all(), part


@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_rotation_scale_and_order_of_views(seed, scale):
    z = draw(seed, 3, 6, 4)
    rotation = torch.linalg.qr(draw(seed + 1, 4, 4)).Q
    torch.testing.assert_close(Invariance()(z @ rotation, 0), Invariance()(z, 0))
    torch.testing.assert_close(Mmcr()(scale * z @ rotation, 0), Mmcr()(z, 0))
    torch.testing.assert_close(BarlowTwins(eps=1e-12)(scale * z + 3, 0), BarlowTwins(eps=1e-12)(z, 0))
    for part in (Invariance(), BarlowTwins(), Mmcr()):
        torch.testing.assert_close(part(z.flip(0), 0), part(z, 0))


@pytest.mark.parametrize("part", [Invariance(), BarlowTwins(), Mmcr()])
def test_a_lone_view_is_refused(part):
    with pytest.raises(ValueError, match="two or more views"):
        part(torch.zeros(1, 4, 3), 0)


def test_one_sample():
    with pytest.raises(ValueError, match="at least 2 samples"):
        BarlowTwins()(draw(0, 2, 1, 4), 0)
    for part in (Invariance(), Mmcr()):
        assert part(draw(0, 2, 1, 4), 0).isfinite()


def test_bad_options_are_refused():
    for bad in ({"redundancy": -1.0}, {"eps": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            BarlowTwins(**bad)
    with pytest.raises(ValueError, match="num_global"):
        Invariance(num_global=-1)
    with pytest.raises(ValueError, match="weight_views"):
        Mmcr(weight_views=-1.0)
