"""What every loss of every union promises; a new loss is picked up from its union, and this file stays as it is."""

import dataclasses
import doctest
import re
import sys
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paths import ROOT

from latentlm import losses

SECTIONS = ["Shapes", "Gradient", "Scale", "Ranks", "Source", "Checked"]


def members(union):
    """Classes of a union; a family of one is that class."""
    return get_args(union) or (union,)


UNIONS = (losses.PairLoss, losses.RowLoss, losses.AnchorLoss, losses.DataLoss, losses.SetLoss)
PAIRS, ROWS, ANCHORS, DATA, SETS = map(members, UNIONS)
ALL = [kind for union in UNIONS for kind in members(union)]
# what holds something still inside has another gradient than its value; this leaves that part to its own test file
STILL = {losses.Visreg: losses.Visreg(shape=0.0)}
every = pytest.mark.parametrize("part", [kind() for kind in ALL], ids=[kind.__name__ for kind in ALL])


def draw(part, dtype=torch.float32, seed=0):
    """Inputs with a sample axis of 8: axis 0 everywhere but for sets, where it is the last but one."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    if isinstance(part, PAIRS):
        return [normal(8, 3, 5), normal(8, 3, 5)]
    if isinstance(part, ROWS):
        return [normal(8, 5), normal(8, 5)]
    if isinstance(part, ANCHORS):
        return [normal(8, 3, 5), normal(8, 3, 5), torch.arange(24).view(8, 3) % 5 != 4]
    if isinstance(part, DATA):
        return [normal(8, 3, 7), torch.arange(24).remainder(7).view(8, 3)]
    return [normal(2, 8, 5)]


def call(part, inputs):
    return part(*inputs, 3) if isinstance(part, SETS) else part(*inputs)


def samples(part, inputs, index):
    return [x[:, index] if isinstance(part, SETS) else x[index] for x in inputs]


def floating(inputs):
    return [x for x in inputs if x.is_floating_point()]


@every
def test_shape_and_precision(part):
    shape = (8, 3) if isinstance(part, PAIRS + ANCHORS + DATA) else (8,) if isinstance(part, ROWS) else ()
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        value = call(part, draw(part, dtype))
        assert value.shape == shape
        assert value.isfinite().all()
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@every
def test_gradient_reaches_every_input(part):
    for dtype in (torch.float32, torch.bfloat16):
        inputs = draw(part, dtype)
        call(part, inputs).sum().backward()
        for x in floating(inputs):
            assert x.grad is not None
            assert x.grad.isfinite().all()
            assert x.grad.abs().sum() > 0


@every
def test_gradient_is_that_of_the_value(part):
    part = STILL.get(type(part), part)
    inputs = samples(part, draw(part, torch.float64), slice(0, 3))
    leaves = [x.detach().requires_grad_() if x.is_floating_point() else x for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: call(part, x), leaves)


@every
def test_autocast_changes_nothing(part):
    inputs = draw(part)
    plain = call(part, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(call(part, inputs), plain, rtol=0, atol=0)


@every
def test_half_precision_does_not_overflow_inside(part):
    inputs = [x.detach() * 300 if x.is_floating_point() else x for x in draw(part, torch.float16)]
    assert call(part, inputs).isfinite().all()


@every
def test_nan_is_not_hidden(part):
    inputs = [x.detach() for x in draw(part)]
    inputs[0].flatten()[0] = torch.nan
    assert call(part, inputs).isnan().any()


def test_zero_at_equality_where_the_docstring_promises_it():
    promised = [kind for kind in PAIRS if "zero at equality" in (kind.__doc__ or "")]
    assert {kind.__name__ for kind in promised} >= {"Mse", "SmoothL1", "Cosine", "Kl"}
    for part in [kind() for kind in promised]:
        for dtype in (torch.float32, torch.bfloat16):
            x, _ = draw(part, dtype)
            assert part(x, x).abs().max() < 1e-6, part


@every
def test_decomposable_says_whether_samples_see_each_other(part):
    inputs = [x.detach() for x in draw(part)]
    halves = [call(part, samples(part, inputs, half)) for half in (slice(0, 4), slice(4, 8))]
    apart = torch.stack(halves).mean()
    same = torch.allclose(apart, call(part, inputs).mean(), rtol=1e-5)
    assert same == part.per_sample


@every
@given(st.permutations(range(8)), st.integers(0, 10**6))
def test_order_of_samples_is_irrelevant(part, order, seed):
    inputs = [x.detach() for x in draw(part, torch.float64, seed)]
    value, shuffled = call(part, inputs), call(part, samples(part, inputs, order))
    torch.testing.assert_close(shuffled, value if isinstance(part, SETS) else value[order])


@every
def test_is_a_frozen_value(part):
    assert dataclasses.is_dataclass(part)
    assert part == type(part)()
    assert hash(part) == hash(type(part)())
    assert eval(repr(part), vars(losses)) == part
    for field in dataclasses.fields(part):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, field.name, None)
    before = repr(part)
    call(part, draw(part))
    assert repr(part) == before
    assert vars(part) == {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}


@every
def test_docstring_answers_the_questions(part):
    text = type(part).__doc__ or ""
    assert [name for name in re.findall(r"^ +(\w+): {2,}\S", text, re.MULTILINE) if name in SECTIONS] == SECTIONS
    assert "Differs: " in text
    assert "L(" in text or "L_i" in text
    for path in re.findall(r"tests/\w+\.py", text):
        assert (ROOT / path).exists(), path
    for field in dataclasses.fields(part):
        assert re.search(rf"^ +(\w+, )*{field.name}(, \w+)*: ", text, re.MULTILINE), f"Args: {field.name}"


@every
def test_is_exported_and_its_examples_hold(part):
    assert type(part).__name__ in losses.__all__
    assert doctest.testmod(sys.modules[type(part).__module__]).failed == 0


@pytest.mark.parametrize("kind", PAIRS + ROWS)
def test_shapes_that_would_broadcast_are_refused(kind):
    shapes = [(2, 1, 4), (2, 5, 4)] if kind in PAIRS else [(1, 4), (5, 4)]
    with pytest.raises(Exception, match=r"(?i)type-check"):
        kind()(*[torch.zeros(shape) for shape in shapes])
