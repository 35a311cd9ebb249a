"""Index makers: inside the row, inside the segment, -1 elsewhere."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_view import view

from latentlm.components.positions import Last, Next, Now, flat, index, nearness


@st.composite
def segments(draw):
    """Rows of consecutive segments with padding on either side."""
    length = draw(st.integers(1, 12))
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        left, right = draw(st.integers(0, length)), draw(st.integers(0, length))
        inner = max(0, length - left - right)
        jumps = draw(st.lists(st.booleans(), min_size=inner, max_size=inner))
        row, number = [-1] * min(left, length), 0
        for place, jump in enumerate(jumps):
            number += int(jump and place > 0)
            row.append(number)
        rows.append((row + [-1] * length)[:length])
    return rows


@given(segments(), st.integers(1, 5), st.integers(1, 4))
def test_next_equals_the_naive_loop(rows, offset, horizon):
    found = Next(offset, horizon)(view(rows)).tolist()
    for b, row in enumerate(rows):
        for t, segment in enumerate(row):
            for n in range(horizon):
                there = t + offset + n
                inside = segment >= 0 and there < len(row) and row[there] == segment
                assert found[b][t][n] == (there if inside else -1)


@given(segments())
def test_now_is_every_real_position_and_last_the_end_of_each_segment(rows):
    seen = view(rows)
    now, last = Now()(seen).tolist(), Last()(seen).tolist()
    groups = max([s for row in rows for s in row] + [0]) + 1
    for b, row in enumerate(rows):
        assert now[b] == [[t if s >= 0 else -1] for t, s in enumerate(row)]
        ends = [max([t for t, s in enumerate(row) if s == g], default=-1) for g in range(groups)]
        assert last[b] == [[end] for end in ends]


@given(segments(), st.integers(1, 3))
def test_flat_counts_over_all_rows(rows, horizon):
    seen = view(rows)
    found, length = Next(1, horizon)(seen), len(rows[0])
    flattened = flat(found, length)
    for b in range(len(rows)):
        for t in range(length):
            want = [-1 if i < 0 else b * length + i for i in found[b, t].tolist()]
            assert flattened[b * length + t].tolist() == want


def test_padding_on_the_left_or_right_gives_the_same_pairs():
    left, right = view([[-1, -1, 0, 0, 0]]), view([[0, 0, 0, -1, -1]])
    for at in (Now(), Next(), Next(2, 2)):
        shifted = at(left)[:, 2:]
        assert torch.where(shifted >= 0, shifted - 2, -1).tolist() == at(right)[:, :3].tolist()
        assert (at(left)[:, :2] == -1).all()
        assert (at(right)[:, 3:] == -1).all()
    assert Last()(left).tolist() == [[[4]]]
    assert Last()(right).tolist() == [[[2]]]


def test_nearness_is_told_by_the_distance_in_the_same_view():
    seen = view([[0] * 10] * 2, {"at": [[[1, 4], [7, -1]], [[2, -1], [-1, -1]]]})
    square = [[-1, -1], [0, 0], [0, 1], [1, 0], [1, 1]]  # a class token and four patches, twice
    seen.places = torch.tensor(square * 2)
    far = 2**-0.25  # across the diagonal
    wanted = [[None, 1, 1, 1, 1, None, 1, 1, far, 1], [None, 1, 1, far, 1, 0, 0, 0, 0, 0]]
    for found, expected in zip(nearness("at", seen).tolist(), wanted, strict=True):
        for value, number in zip(found, expected, strict=True):
            assert number is None or value == pytest.approx(number)
    with pytest.raises(ValueError, match="distance_to: needs positions with coordinates"):
        nearness("at", view([[0, 0]], {"at": [[[1]]]}))


def test_nothing_but_padding():
    seen = view([[-1, -1]])
    assert (Now()(seen) == -1).all()
    assert (Next()(seen) == -1).all()
    assert Last()(seen).tolist() == [[[-1]]]


def test_a_name_is_a_set_of_the_batch():
    seen = view([[0, 0]], {"ends": [[[1]]]})
    assert index("ends", seen).tolist() == [[[1]]]
    with pytest.raises(ValueError, match=r"no set named 'end' \(it has: ends\)"):
        index("end", seen)
    with pytest.raises(ValueError, match=r"'flat' has shape \[1, 2\]; it needs \[rows, groups, positions\]"):
        index("flat", view([[0, 0]], {"flat": [[0, 1]]}))


@pytest.mark.parametrize("arguments", [(0, 1), (1, 0), (-1, 1)])
def test_next_looks_ahead(arguments):
    with pytest.raises(ValueError, match="at least 1"):
        Next(*arguments)
