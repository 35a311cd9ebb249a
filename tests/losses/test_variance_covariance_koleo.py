"""Variance, Covariance and Koleo against loops, closed forms, and the cases where a statistic is undefined."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tolerance import assert_as_accurate
from toy_view import report, terms, view

from latentlm.losses import Covariance, Koleo, MeanEntropy, Variance
from latentlm.objective.objective import total

HADAMARD = torch.tensor(  # four orthogonal columns of +-1 with mean zero
    [[a, b, a * b, c] for a in (1.0, -1.0) for b in (1.0, -1.0) for c in (1.0, -1.0)], dtype=torch.float64
)


def covariance(z):
    """C of [m d], entry by entry."""
    m, d = z.shape
    mean = [sum(z[:, i]) / m for i in range(d)]
    return [
        [sum((z[s, i] - mean[i]) * (z[s, j] - mean[j]) for s in range(m)) / (m - 1) for j in range(d)] for i in range(d)
    ]


def naive_variance(z, floor=1.0, eps=1e-4):
    groups = []
    for group in z.flatten(0, -3):
        c = covariance(group)
        groups.append(sum((floor - (c[i][i] + eps).sqrt()).clamp(min=0) for i in range(len(c))) / len(c))
    return torch.stack(groups).mean()


def naive_covariance(z, norm="d"):
    d, groups = z.shape[-1], []
    for group in z.flatten(0, -3):
        c = covariance(group)
        total = sum(c[i][j] * c[i][j] for i in range(d) for j in range(d) if i != j)
        groups.append(total / (d if norm == "d" else d * (d - 1)))
    return torch.stack(groups).mean()


def naive_koleo(z):
    values = []
    for group in z.flatten(0, -3):
        unit = [row / row.square().sum().sqrt() for row in group]
        for i, u in enumerate(unit):
            others = [v for j, v in enumerate(unit) if j != i]
            nearest = max(others, key=lambda v: float((u * v).sum()))
            values.append(-((u - nearest + 1e-8).square().sum().sqrt() + 1e-8).log())
    return torch.stack(values).mean()


CASES = [
    (Koleo(), naive_koleo),
    (Variance(), naive_variance),
    (Variance(floor=2.0, eps=1e-2), lambda z: naive_variance(z, 2.0, 1e-2)),
    (Covariance(), naive_covariance),
    (Covariance(norm="d(d-1)"), lambda z: naive_covariance(z, "d(d-1)")),
]


def draw(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("part", "naive"), CASES, ids=[repr(part) for part, _ in CASES])
def test_matches_the_equation(part, naive):
    z = 0.8 * draw(0, 2, 6, 4) + 3
    torch.testing.assert_close(part(z, 0), naive(z), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(part(z.float(), 0).double(), naive(z), rtol=1e-4, atol=1e-6)
    assert_as_accurate(lambda x: part(x, 0), naive, z)


def test_known_answers():
    constant = torch.full((8, 4), 2.5, dtype=torch.float64)
    assert Variance()(constant, 0).item() == pytest.approx(0.99, abs=1e-12)
    assert 25 * Variance()(constant, 0).item() == pytest.approx(24.75)  # VICReg's total at collapse
    assert Covariance()(constant, 0).item() == 0
    assert Variance()(HADAMARD, 0).item() == 0
    assert Covariance()(HADAMARD, 0).item() == 0
    copies = HADAMARD[:, :1].expand(8, 4)
    assert Covariance()(copies, 0).item() == pytest.approx(3 * (8 / 7) ** 2, abs=1e-12)  # 3.918367
    assert Covariance(norm="d(d-1)")(copies, 0).item() == pytest.approx((8 / 7) ** 2, abs=1e-12)


def test_gradient_at_and_near_collapse():
    exact = torch.ones(8, 4, dtype=torch.float64, requires_grad=True)
    Variance()(exact, 0).backward()
    assert exact.grad is not None
    assert exact.grad.abs().max() == 0
    near = (1 + 1e-3 * draw(1, 8, 4)).requires_grad_()
    Variance()(near, 0).backward()
    assert near.grad is not None
    assert (near.grad.abs().sum(0) > 1e-4).all()


def test_known_answers_of_nearest_neighbours():
    eye = torch.eye(6, 16, dtype=torch.float64)
    assert Koleo()(eye, 0).item() == pytest.approx(-math.log(2) / 2, abs=1e-7)
    copies = torch.full((2, 16), 3.0, dtype=torch.float64)
    assert Koleo()(copies, 0).item() == pytest.approx(-math.log(5e-8), abs=1e-6)  # 16.811243
    assert Koleo()(copies.float(), 0).item() == pytest.approx(16.811243, abs=1e-4)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    assert Koleo()(opposite, 0).item() == pytest.approx(-math.log(2), abs=1e-6)  # not its own neighbour: 8.42


def test_koleo_pushes_a_pair_apart_and_leaves_scale_and_rotation_alone():
    z = draw(3, 6, 4)
    rotation = torch.linalg.qr(draw(4, 4, 4)).Q
    torch.testing.assert_close(Koleo()(5 * z @ rotation, 0), Koleo()(z, 0), rtol=1e-6, atol=1e-6)
    pair = torch.tensor([[1.0, 0.0], [1.0, 0.1]], dtype=torch.float64, requires_grad=True)
    Koleo()(pair, 0).backward()
    assert pair.grad is not None
    after = pair.detach() - 1e-3 * pair.grad
    assert Koleo()(after, 0) < Koleo()(pair, 0)


@pytest.mark.parametrize("part", [Variance(), Covariance(), Koleo()])
def test_too_few_samples(part):
    with pytest.raises(ValueError, match="at least 2 samples"):
        part(draw(0, 1, 4), 0)
    none = draw(0, 0, 4).requires_grad_()
    value = part(none, 0)
    value.backward()
    assert value.item() == 0
    assert none.grad is not None


@pytest.mark.parametrize("norm", ["d", "d(d-1)"])
def test_one_coordinate_has_no_correlation(norm):
    assert Covariance(norm=norm)(draw(0, 6, 1), 0).item() == 0


@given(st.integers(0, 10**6), st.floats(-100, 100), st.floats(0.1, 10))
def test_shift_and_scale(seed, shift, scale):
    z = draw(seed, 6, 4)
    for part in (Variance(), Covariance()):
        torch.testing.assert_close(part(z + shift, 0), part(z, 0))
    torch.testing.assert_close(Covariance()(scale * z, 0), scale**4 * Covariance()(z, 0))


def test_bad_options_are_refused():
    for bad in (lambda: Variance(floor=0.0), lambda: Variance(eps=0.0), lambda: Koleo(eps=0.0)):
        with pytest.raises(ValueError, match="above 0"):
            bad()


def test_terms_over_the_same_samples_run_their_head_once_and_are_what_each_is_alone():
    piece = "{kind: regularize, source: {depth: block 2, head: wide}, loss: %s, sample_axis: positions, weight: %s}"
    segments, times = [[0, 0, 1, 1, 1, -1], [0, 0, 0, -1, -1, -1]], []

    def run(variance, covariance):
        wide = "heads: {wide: {kind: projector, dim: 6}}\n"
        v, c = piece % ("variance", variance), piece % ("covariance", covariance)
        built = terms(wide + "terms:\n  v: " + v + "\n  c: " + c)
        built.heads["wide"].register_forward_hook(lambda *_: times.append(1))
        seen = view(segments)
        reports = report(built, seen)
        total(reports).backward()
        values = [reports[name].value.detach() for name in ("v", "c")]
        return values, [seen.states[2].grad, *(weight.grad for weight in built.parameters())]

    values, grads = run(3, 2)
    assert len(times) == 1
    (first, one), (second, other) = run(3, 0), run(0, 2)
    assert values == [first[0], second[1]]
    torch.testing.assert_close(grads, [a + b for a, b in zip(one, other, strict=True)])


def test_mean_entropy_is_the_equation_and_zero_where_prototypes_are_used_alike():
    z = draw(0, 2, 6, 5)
    want = 0.0
    for group in z:
        mean = torch.stack([(row / 0.5).exp() / (row / 0.5).exp().sum() for row in group]).mean(0)
        want += (torch.tensor(5.0).double().log() + sum(q * q.log() for q in mean)) / 2
    torch.testing.assert_close(MeanEntropy(temperature=0.5)(z, 0), want)
    each_once = 100 * torch.eye(4, dtype=torch.float64)[None]
    assert MeanEntropy()(each_once, 0).abs() < 1e-12
    one = torch.zeros(1, 4, 4, dtype=torch.float64)
    one[..., 0] = 100
    torch.testing.assert_close(MeanEntropy()(one, 0), torch.tensor(4.0).double().log())
