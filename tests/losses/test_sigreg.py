"""Sigreg against a loop over slices, knots and samples, and the numbers its statistic is known by."""

import math
from statistics import NormalDist

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tolerance import assert_as_accurate

from latentlm.losses import Sigreg
from latentlm.losses.samples import directions

KNOTS = [3 * j / 16 for j in range(17)]
# trapezoid on [0, 3], doubled, times exp(-t^2/2)
WEIGHTS = [(3 / 16 if j in (0, 16) else 6 / 16) * math.exp(-t * t / 2) for j, t in enumerate(KNOTS)]
ONE = Sigreg(num_slices=1)  # in one dimension the direction is +1 or -1, and the statistic is even


def slice_statistic(u):
    """T of one slice: u is a 1-d tensor, everything is done in its dtype."""
    total = 0 * u[0]
    for t, w in zip(KNOTS, WEIGHTS, strict=True):
        real = sum((t * x).cos() for x in u) / len(u) - math.exp(-t * t / 2)
        imaginary = sum((t * x).sin() for x in u) / len(u)
        total = total + w * (real * real + imaginary * imaginary)
    return total * len(u)


def naive(part, step):
    def run(z):
        values = []
        for group in z.flatten(0, -3):
            for a in directions(z.shape[-1], part.num_slices, part.seed, step).to(z.dtype).T:
                u = torch.stack([sum(x * y for x, y in zip(row, a, strict=True)) for row in group])
                values.append(slice_statistic(u))
        return torch.stack(values).mean()

    return run


def column(values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def draw(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quantiles(count):
    return [NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)]


def test_matches_the_equation():
    part, z = Sigreg(num_slices=3, chunk=2), draw(0, 2, 5, 4)
    torch.testing.assert_close(part(z, 7), naive(part, 7)(z), rtol=1e-10, atol=0)
    torch.testing.assert_close(part(z.float(), 7).double(), naive(part, 7)(z), rtol=1e-5, atol=0)
    assert_as_accurate(lambda x: part(x, 7), naive(part, 7), z)


@pytest.mark.parametrize(
    ("values", "known"),
    [
        ([0.0] * 3, 3 * 0.4020476),
        ([1.0] * 2, 2 * 1.1860058),
        ([2.0] * 2, 2 * 2.6428524),
        ([10.0] * 2, 2 * 3.9468952),
        ([1.0, -1.0], 0.2056592),
        ([-1.0, 0.0, 1.0], 0.0329465),
        ([0.5, -0.25, 1.5, -2.0], 0.4515704),
        (quantiles(4), 0.0273984),
        (quantiles(16), 0.0043796),
        (quantiles(64), 0.0008342),
    ],
)
def test_known_answers(values, known):
    exact = slice_statistic(torch.tensor(values, dtype=torch.float64)).item()
    assert exact == pytest.approx(known, abs=2e-7)
    assert ONE(column(values), 0).item() == pytest.approx(exact, rel=1e-10)
    assert ONE(column(values).float(), 0).item() == pytest.approx(exact, abs=2e-6)


@pytest.mark.parametrize(
    ("mean", "deviation", "known"),
    [(0, 0.1, 0.38688), (0, 0.5, 0.15119), (0, 2, 0.23609), (0, 10, 1.1452), (0.5, 1, 0.11812), (3, 1, 2.24857)],
)
def test_population_values(mean, deviation, known):
    z = mean + deviation * column(quantiles(4000))
    assert Sigreg(num_slices=1, scale_by_samples=False)(z, 0).item() == pytest.approx(known, rel=5e-3)


def test_weights_and_expectation_under_the_gaussian():
    assert sum(WEIGHTS) == pytest.approx(2.499666, abs=1e-6)
    torch.testing.assert_close(Sigreg().weights(), torch.tensor(WEIGHTS, dtype=torch.float64))
    expected = sum(w * (1 - math.exp(-t * t)) for t, w in zip(KNOTS, WEIGHTS, strict=True))
    assert expected == pytest.approx(1.0524642, abs=1e-6)
    assert ONE(draw(0, 400, 256, 1), 0).item() == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize(
    ("preset", "zeros", "null"),
    [
        ({"num_slices": 1024}, 0.4020476, 1.0524642),  # the authors' package, lightly
        ({"knots": 17, "t_max": 5.0, "two_sided": True}, 0.4089207, 1.0594),  # the paper's listing
        ({"knots": 10, "two_sided": True, "scale_by_samples": False}, 0.3999617, 1.0503),  # eb_jepa
    ],
)
def test_settings_of_other_libraries(preset, zeros, null):
    """The two numbers that tell them apart: per sample when all are 0, and expected under N(0, 1)."""
    part, count = Sigreg(**preset), 16
    value = part(torch.zeros(count, 1, dtype=torch.float64), 0).item()
    assert value / (count if part.scale_by_samples else 1) == pytest.approx(zeros, abs=5e-8)
    knots, weights = part.grid(), part.weights()
    assert (weights * (1 - (-knots.square()).exp())).sum().item() == pytest.approx(null, abs=5e-5)
    samples = draw(5, 400, 256, 1)
    mean = Sigreg(**preset | {"num_slices": 1})(samples, 0).item() * (1 if part.scale_by_samples else 256)
    assert mean == pytest.approx(null, abs=0.2)


def test_both_sides_of_an_even_integrand_are_one_side_doubled():
    z = draw(6, 2, 8, 3)
    torch.testing.assert_close(Sigreg(knots=33, two_sided=True)(z, 0), Sigreg(knots=17)(z, 0))


def test_gaussian_scores_lower_than_uniform_shifted_and_collapsed():
    gaussian = draw(0, 512, 4)
    uniform = (torch.rand(512, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5) * math.sqrt(
        12
    )
    collapsed = gaussian * torch.tensor([1.4, 1.4, 0.1, 0.1])
    best = Sigreg()(gaussian, 0)
    for worse in (uniform, gaussian + 0.5, 2 * gaussian, collapsed):
        assert Sigreg()(worse, 0) > 1.2 * best


@pytest.mark.parametrize("chunk", [1, 3, 8, 100])
def test_chunks_change_nothing(chunk):
    whole, part = Sigreg(num_slices=8, chunk=8), Sigreg(num_slices=8, chunk=chunk)
    one, other = (draw(1, 6, 4).requires_grad_() for _ in range(2))
    whole(one, 2).backward()
    part(other, 2).backward()
    torch.testing.assert_close(part(other, 2), whole(one, 2))
    torch.testing.assert_close(other.grad, one.grad)


def test_directions_follow_seed_and_step():
    ours = directions(3, 5, seed=0, step=4)
    torch.testing.assert_close(ours.norm(dim=0), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(ours, directions(3, 5, seed=0, step=4), rtol=0, atol=0)
    assert not any(torch.equal(ours, other) for other in (directions(3, 5, 0, 5), directions(3, 5, 1, 4)))
    assert not torch.equal(directions(3, 5, seed=2, step=1), directions(3, 5, seed=1, step=2))
    z = draw(0, 4, 3)
    assert Sigreg()(z, 0) != Sigreg()(z, 1) != Sigreg(seed=1)(z, 1)
    state = torch.get_rng_state()
    Sigreg()(z, 0)
    assert torch.equal(state, torch.get_rng_state())  # the run's own randomness is left alone


def test_scale_and_small_sets():
    z = draw(2, 8, 3)
    torch.testing.assert_close(Sigreg(scale_by_samples=False)(z, 0) * 8, Sigreg()(z, 0))
    assert ONE(column([0.0]), 0).item() == pytest.approx(0.4020476, abs=1e-7)  # one sample is defined
    none = z[:0].requires_grad_()
    value = Sigreg()(none, 0)
    value.backward()
    assert value.item() == 0
    assert none.grad is not None


def test_gradient_is_zero_at_collapse_and_bounded():
    z = torch.zeros(8, 3, dtype=torch.float64, requires_grad=True)
    Sigreg()(z, 0).backward()
    assert z.grad is not None
    assert z.grad.abs().max() < 1e-12
    far = (1e3 * draw(3, 8, 3)).requires_grad_()
    Sigreg()(far, 0).backward()
    assert far.grad is not None
    # |d phi| <= t / M, |gap| <= 2 in each part: M * sum_j w_j 2 * 2 * 2 t_j / M
    assert far.grad.norm(dim=-1).max() <= 8 * sum(w * t for t, w in zip(KNOTS, WEIGHTS, strict=True))


@given(st.integers(0, 10**6))
def test_even_and_in_expectation_rotation_invariant(seed):
    z, part = draw(seed, 16, 3) + 0.5, Sigreg(num_slices=4096)
    torch.testing.assert_close(part(-z, seed), part(z, seed))
    rotation = torch.linalg.qr(draw(seed + 1, 3, 3)).Q
    assert part(z @ rotation, seed).item() == pytest.approx(part(z, seed).item(), rel=0.1)


def test_bad_options_are_refused():
    for options in ({"num_slices": 0}, {"knots": 1}, {"t_max": 0.0}, {"chunk": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}"):
            Sigreg(**options)
