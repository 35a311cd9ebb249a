"""Taps: depths as written, gathering, pooling, and what never reaches a head."""

import doctest

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_view import DIM, objective, view

from latentlm.components import tap
from latentlm.components.tap import Tap, resolve_depth


@pytest.mark.parametrize(
    ("depth", "layers", "block"),
    [
        (0, 30, 0), (1, 30, 30), (1.0, 30, 30), ("1/5", 30, 6), (0.2, 30, 6), ("0.5", 30, 15), ("1/2", 5, 3),
        ("block 12", 30, 12), ("block 1", 30, 1), ("block 0", 30, 0), ("block 30", 30, 30),
        ("1/100", 4, 1), (0.001, 4, 1), (0.999, 4, 4), ("0/4", 4, 0), ("4/4", 4, 4),
    ],
)  # fmt: skip
def test_depths(depth, layers, block):
    assert resolve_depth(depth, layers) == block


@given(st.integers(1, 80), st.integers(1, 80))
def test_a_block_by_number_and_as_a_fraction(block, layers):
    block = min(block, layers)
    assert resolve_depth(f"{block}/{layers}", layers) == block
    assert resolve_depth(block / layers, layers) == block


@pytest.mark.parametrize("depth", ["block 31", "block -1"])
def test_depths_the_network_does_not_have(depth):
    with pytest.raises(ValueError, match=r"the model has 30 blocks; use 0\.\.30"):
        resolve_depth(depth, 30)


@pytest.mark.parametrize("depth", [-1, -0.5, 1.5, "5/4", "8/2", "top", "1/0", "block x", "block 1.5", "",
                                   float("inf"), float("nan"), "inf"])  # fmt: skip
def test_depths_nobody_has_are_refused_before_there_is_a_network(depth):
    with pytest.raises(ValueError, match=r"use a fraction from 0 to 1 .* or 'block 1'"):
        Tap(depth)


@pytest.mark.parametrize("depth", [2, 12, "12", 2.0])
def test_a_whole_number_is_not_guessed_to_be_a_block(depth):
    with pytest.raises(
        ValueError, match=f"a number is a share of the network, 0 to 1; write 'block {int(float(depth))}'"
    ):
        Tap(depth)


def test_out_of_range_depths_of_any_part_name_the_term():
    for term in (
        "{kind: predict, source: {depth: block 9}, target: {kind: token_embeddings, ids: x}, loss: cosine}",
        "{kind: predict, source: {depth: 1}, target: {kind: online, tap: {depth: block 9}}, loss: cosine}",
        "{kind: predict, source: {depth: 1}, target: {kind: ema, tap: {depth: block 9}}, loss: cosine}",
        "{kind: regularize, source: {depth: block 9}, loss: sigreg, sample_axis: examples}",
        "{kind: levels, sources: [1], targets: [block 9]}",
    ):
        with pytest.raises(ValueError, match=r"objective\.terms\.far: depth block 9: the model has 4 blocks"):
            objective(f"terms: {{far: {term}}}").resolve(4)


SETS = {"spans": [[[0, 1, -1], [3, -1, -1]], [[1, -1, 3], [-1, -1, -1]]]}


def read(tap, seen, heads=None):
    keep = tap.mask(seen).any(1)
    return tap.resolve(4).read(seen, keep, heads or {}), keep


@pytest.mark.parametrize("norm", ["none", "final"])
@pytest.mark.parametrize("pool", ["none", "mean", "last"])
def test_pooling_equals_the_naive_loop(pool, norm):
    seen = view([[0] * 4] * 2, SETS)
    latents, keep = read(Tap("block 2", norm, "spans", pool), seen)
    state = seen.states[2] if norm == "none" else seen.norm(seen.states[2])
    anchors = [(b, g) for b in range(2) for g in range(2)]
    assert keep.tolist() == [True, True, True, False]
    for row, (b, g) in enumerate(anchors[:3]):
        places = SETS["spans"][b][g]
        real = [p for p in places if p >= 0]
        if pool == "none":
            assert latents.mask[row].tolist() == [p >= 0 for p in places]
            assert latents.index[row].tolist() == [b * 4 + p if p >= 0 else -1 for p in places]
            for n, p in enumerate(places):
                if p >= 0:
                    torch.testing.assert_close(latents.values[row, n], state[b, p])
        else:
            want = state[b, real[-1]] if pool == "last" else state[b, real].mean(0)
            torch.testing.assert_close(latents.values[row, 0], want)
            assert latents.mask[row].tolist() == [True]
            assert latents.index[row].tolist() == [b * 4 + real[-1]]


def test_only_kept_anchors_reach_the_head():
    seen, counted = view([[0, 0, 0, -1, -1]]), []

    def head(values):
        counted.append(values.shape[0])
        return 2 * values

    tap = Tap(1, head="double")
    latents = tap.resolve(4).read(seen, torch.tensor([True, False, True, False, False]), {"double": head})
    assert counted == [2]
    torch.testing.assert_close(latents.values[:, 0], 2 * seen.states[4][0, [0, 2]])


@pytest.mark.parametrize("pool", ["none", "mean", "last"])
@pytest.mark.parametrize("norm", ["none", "final"])
def test_what_is_masked_is_never_read(pool, norm):
    gradients = []
    for poison in (0.0, torch.nan):
        seen = view([[-1, 0, 0, 0]], {"spans": [[[1, -1, 3], [-1, 2, -1]]]})
        with torch.no_grad():
            seen.states[2][:, 0] = poison  # where index -1 would land
        latents, _ = read(Tap("block 2", norm, "spans", pool), seen)
        latents.values[latents.mask].square().sum().backward()
        gradients.append(torch.cat([seen.states[2].grad[:, 1:].flatten(), *(p.grad for p in seen.norm.parameters()
                                                                            if p.grad is not None)]))  # fmt: skip
        assert (seen.states[2].grad[:, 0] == 0).all()
    assert gradients[0].isfinite().all()
    assert torch.equal(*gradients)


def test_a_network_without_a_final_norm_says_so():
    seen = view([[0, 0]])
    seen.norm = None
    with pytest.raises(ValueError, match="no final norm; use norm: none"):
        read(Tap(1, "final"), seen)


def test_the_head_comes_last():
    seen = view([[0] * 4] * 2, SETS)
    double = torch.nn.Linear(DIM, 3, dtype=torch.float64)
    latents, _ = read(Tap(1, "final", "spans", "mean", "wide"), seen, {"wide": double})
    plain, _ = read(Tap(1, "final", "spans", "mean"), seen)
    torch.testing.assert_close(latents.values, double(plain.values))


def test_the_examples_of_the_docstring_hold():
    found = doctest.testmod(tap)
    assert found.attempted > 0
    assert found.failed == 0
