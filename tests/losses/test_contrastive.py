"""InfoNce and NtXent against a loop over rows, its closed forms, and what it must ignore."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tolerance import assert_as_accurate

from latentlm.losses import InfoNce, NtXent
from latentlm.losses.samples import require_views


def naive(pred, target, temperature=0.1, normalize=True):
    def similarity(p, t):
        dot = sum(a * b for a, b in zip(p, t, strict=True))
        return dot / (sum(a * a for a in p).sqrt() * sum(b * b for b in t).sqrt()) if normalize else dot

    rows = []
    for i, p in enumerate(pred):
        exps = [(similarity(p, t) / temperature).exp() for t in target]
        rows.append(-(exps[i] / sum(exps)).log())
    return torch.stack(rows)


def draw(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}, {"temperature": 2.0, "normalize": False}])
def test_matches_the_equation(options):
    pred, target = draw(0, 6, 4)
    torch.testing.assert_close(InfoNce(**options)(pred, target), naive(pred, target, **options), rtol=1e-10, atol=1e-12)
    assert_as_accurate(InfoNce(**options), lambda p, t: naive(p, t, **options), pred, target)


def test_known_answers():
    # 15 candidates are those of one anchor among 2 x 8 views, the usual way these numbers are quoted
    same = torch.ones(15, 16, dtype=torch.float64)
    torch.testing.assert_close(InfoNce()(same, same), torch.full((15,), math.log(15)).double())
    assert InfoNce()(same, same)[0].item() == pytest.approx(2.708050, abs=1e-6)
    apart = torch.eye(15, 16, dtype=torch.float64)
    closed = -math.log(math.exp(2) / (math.exp(2) + 14))
    torch.testing.assert_close(InfoNce(temperature=0.5)(apart, apart), torch.full((15,), closed).double())
    assert closed == pytest.approx(1.062879, abs=1e-6)


def test_one_row_has_no_negatives():
    pred, target = draw(1, 1, 4)
    assert InfoNce()(pred, target).tolist() == [0.0]
    none = pred[:0].requires_grad_()
    InfoNce()(none, target[:0]).sum().backward()
    assert none.grad is not None


def test_skip_duplicates_takes_them_out_of_the_negatives():
    pred, target = draw(2, 5, 4)
    target[3] = target[0]  # rows 0 and 3 are the same fact
    values = InfoNce(skip_duplicates=True)(pred, target)
    for row, kept in {0: [0, 1, 2, 4], 3: [3, 1, 2, 4], 1: [1, 0, 2, 3, 4]}.items():
        alone = naive(pred[[row] * len(kept)], target[kept])[0]
        torch.testing.assert_close(values[row], alone)
    distinct = draw(3, 5, 4)
    torch.testing.assert_close(InfoNce(skip_duplicates=True)(*distinct), InfoNce()(*distinct))


def test_skip_duplicates_finds_float32_copies_and_nothing_nearby():
    facts = torch.randn(6, 2048, generator=torch.Generator().manual_seed(0))
    part, plain = InfoNce(temperature=1.0, skip_duplicates=True), InfoNce(temperature=1.0)
    copied = torch.cat((facts, facts[:1]))
    torch.testing.assert_close(part(copied, copied)[[0, 6]], plain(facts, facts)[[0, 0]])
    close = torch.cat((facts, facts[:1] + 0.01 * facts[1:2]))  # cosine 1 - 5e-5
    torch.testing.assert_close(part(close, close), plain(close, close))


def test_both_sides_receive_gradient():
    pred, target = (x.requires_grad_() for x in draw(4, 5, 4))
    InfoNce()(pred, target)[0].backward()
    assert pred.grad is not None
    assert target.grad is not None
    assert pred.grad[1:].abs().sum() == 0
    assert (target.grad.abs().sum(-1) > 0).all()


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_row_scale_and_joint_rotation_change_nothing(seed, scale):
    pred, target = draw(seed, 5, 4)
    rotation = torch.linalg.qr(draw(seed + 1, 4, 4)[0]).Q
    scales = torch.linspace(1, scale, 5, dtype=torch.float64)[:, None]
    torch.testing.assert_close(InfoNce()(pred * scales, target / scales), InfoNce()(pred, target))
    torch.testing.assert_close(InfoNce()(pred @ rotation, target @ rotation), InfoNce()(pred, target))


def naive_nt_xent(z, temperature=0.5):
    views, samples, _ = z.shape
    unit = {(v, i): z[v, i] / z[v, i].square().sum().sqrt() for v in range(views) for i in range(samples)}
    values = []
    for v, i in unit:
        exps = {key: ((unit[v, i] * other).sum() / temperature).exp() for key, other in unit.items() if key != (v, i)}
        values += [-(exps[w, i] / sum(exps.values())).log() for w in range(views) if w != v]
    return torch.stack(values).mean()


@pytest.mark.parametrize(("views", "temperature"), [(2, 0.5), (3, 0.1)])
def test_views_match_the_equation(views, temperature):
    z, part = draw(5, views, 4, 3)[0], NtXent(temperature)
    torch.testing.assert_close(part(z, 0), naive_nt_xent(z, temperature), rtol=1e-10, atol=1e-12)
    assert_as_accurate(lambda x: part(x, 0), lambda x: naive_nt_xent(x, temperature), z)


def test_known_answers_of_views():
    same = torch.ones(2, 8, 16, dtype=torch.float64)
    assert NtXent()(same, 0).item() == pytest.approx(math.log(15), abs=1e-12)  # ln(2N - 1): 2.708050
    perfect = torch.eye(8, 16, dtype=torch.float64).expand(2, 8, 16)
    assert NtXent()(perfect, 0).item() == pytest.approx(1.062879, abs=1e-6)
    assert NtXent()(draw(6, 2, 1, 4)[0], 0).item() == 0


def test_one_view_has_no_positive():
    for bad in (torch.zeros(4, 3), torch.zeros(1, 4, 3)):
        with pytest.raises(ValueError, match="two or more views"):
            require_views(NtXent(), bad)


@pytest.mark.parametrize("kind", [InfoNce, NtXent])
def test_bad_temperature_is_refused(kind):
    with pytest.raises(ValueError, match="temperature"):
        kind(temperature=0.0)
