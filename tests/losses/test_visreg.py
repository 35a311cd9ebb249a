"""Visreg against a loop over samples and slices, and what it is for: a gradient near collapse."""

from statistics import NormalDist

import pytest
import torch
from test_variance_covariance_koleo import draw
from tolerance import assert_as_accurate

from latentlm.losses import Sigreg, Variance, Visreg
from latentlm.losses.samples import directions


def quantiles(count):
    return [NormalDist().inv_cdf((i + 1) / (count + 1)) for i in range(count)]


def naive(part, step):
    def run(z):
        values = []
        for group in z.flatten(0, -3):
            m, dim = group.shape
            mean = [sum(group[:, d]) / m for d in range(dim)]
            std = [(sum((x - mean[d]) ** 2 for x in group[:, d]) / m).sqrt() for d in range(dim)]
            value = part.center * sum(x * x for x in mean) / dim
            value = value + part.scale * sum((1 - s) ** 2 for s in std) / dim
            unit = torch.stack([(group[:, d] - mean[d]) / (std[d].detach() + part.eps) for d in range(dim)], 1)
            shape = 0 * value
            for a in directions(dim, part.num_slices, part.seed, step).to(z.dtype).T:
                u = sorted(sum(x * y for x, y in zip(row, a, strict=True)) for row in unit)
                shape = shape + sum((x - q) ** 2 for x, q in zip(u, quantiles(m), strict=True)) / m
            values.append(value + part.shape * shape / part.num_slices)
        return torch.stack(values).mean()

    return run


@pytest.mark.parametrize(
    "part", [Visreg(num_slices=3, chunk=2), Visreg(center=0.5, scale=2.0, shape=0.3, num_slices=2, seed=1)], ids=repr
)
def test_matches_the_equation_in_value_and_gradient(part):
    z = 0.8 * draw(0, 2, 6, 4) + 0.5
    torch.testing.assert_close(part(z, 7), naive(part, 7)(z), rtol=1e-10, atol=0)
    torch.testing.assert_close(part(z.float(), 7).double(), naive(part, 7)(z), rtol=1e-5, atol=1e-6)
    one, other = (z.clone().requires_grad_() for _ in range(2))
    part(one, 7).backward()
    naive(part, 7)(other).backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-12)
    assert_as_accurate(lambda x: part(x, 7), naive(part, 7), z)


def test_known_answers():
    ideal = torch.tensor(quantiles(64), dtype=torch.float64)[:, None]
    biased = ideal.std(correction=0).item()
    assert biased == pytest.approx(0.944356, abs=1e-6)
    assert Visreg(shape=0.0)(ideal, 0).item() == pytest.approx((1 - biased) ** 2, abs=1e-9)
    # standardised quantiles against the quantiles themselves: (1 - std)^2, not 0
    least = Visreg(center=0.0, scale=0.0, eps=1e-12)(ideal, 0).item()
    assert least == pytest.approx((1 - biased) ** 2, abs=1e-9)
    constant = torch.full((8, 4), 2.0, dtype=torch.float64)
    assert Visreg(shape=0.0)(constant, 0).item() == pytest.approx(4 + 1)


def gradient(part, sigma):
    z = (sigma * draw(0, 256, 4)).requires_grad_()
    part(z, 0).backward()
    assert z.grad is not None
    return z.grad.norm().item()


def test_the_scale_part_does_not_fade_where_others_do():
    scale = Visreg(center=0.0, shape=0.0)
    for sigma, known in ((1e-6, 0.0625), (1e-2, 0.0619), (0.1, 0.056), (0.5, 0.031)):
        assert gradient(scale, sigma) == pytest.approx(known, rel=0.03)
    for part in (Variance(), Sigreg()):  # both vanish, by their eps and by their window
        assert gradient(part, 1e-6) < 1e-3 * gradient(part, 0.1)
    exact = torch.ones(8, 4, dtype=torch.float64, requires_grad=True)
    Visreg(num_slices=8)(exact, 0).backward()
    assert exact.grad is not None
    assert exact.grad.isfinite().all()


def test_shape_does_not_steer_scale():
    z = draw(1, 64, 4)
    z = (z - z.mean(0)) / z.std(0, correction=0)
    ours = Visreg(center=0.0, scale=0.0, eps=1e-12, num_slices=64)
    torch.testing.assert_close(ours(3 * z, 0), ours(z, 0))
    assert Visreg(num_slices=64)(3 * z + 1, 0) > Visreg(num_slices=64)(z, 0)


def test_chunks_and_directions():
    z = draw(2, 2, 6, 4)
    torch.testing.assert_close(Visreg(num_slices=7, chunk=2)(z, 3), Visreg(num_slices=7)(z, 3))
    assert Visreg(num_slices=7)(z, 3) != Visreg(num_slices=7)(z, 4)


def test_bad_options_are_refused():
    for bad in ({"center": -1.0}, {"scale": -1.0}, {"shape": -1.0}, {"eps": 0.0}, {"num_slices": 0}, {"chunk": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Visreg(**bad)
    with pytest.raises(ValueError, match="at least 2 samples"):
        Visreg()(draw(0, 1, 4), 0)
