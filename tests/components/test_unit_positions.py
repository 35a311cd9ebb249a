"""Positions of units equal naive loops over the numbers of the tokens, for every option."""

import itertools

import pytest
import torch
from toy_view import view

from latentlm.components.data_targets import Tokens
from latentlm.components.positions import ids_of, index
from latentlm.components.token_embeddings import TokenEmbeddings
from latentlm.components.units import ROLES, Unit, UnitsAlone, units_alone

# two documents, the units of both read alone behind them, padding
SEGMENTS = [[0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, -1]]
FINE = [[-1, 0, 0, 1, 1, 1, 2, 3, 3, 4, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1]]
COARSE = [[-1, 0, 0, 0, 0, 0, 1, 2, 2, 2, 2, -1, -1, -1, -1, -1, -1, -1, -1, -1]]
ALONE = [[-1] * 11 + [0, 0, -1, 1, 2, 2, 3, 3, -1]]  # unit 4 is not read alone
ROLE = [[1, 2, 1, 1, 2]]


def made(**more):
    sets = {"units/fine": FINE, "units/coarse": COARSE, "alone/fine": ALONE, "roles/fine": ROLE} | more
    return view(SEGMENTS, sets)


def tokens(table, number):
    return [k for k, n in enumerate(table[0]) if n == number]


def naive(unit):
    """Positions of each anchor, written from the words of the docstring."""
    tables = {"fine": FINE, "coarse": COARSE}
    own, anchors = tables[unit.grain], tables[unit.anchors]
    read = ALONE if unit.read == "alone" else own
    found = []
    for anchor in range(max(anchors[0]) + 1):
        first = tokens(anchors, anchor)[0]
        if unit.parent_of:
            wanted = [own[0][first] + unit.offset] if own[0][first] >= 0 else []
        elif unit.parts_of:
            wanted = [n for n in range(max(own[0]) + 1) if anchors[0][tokens(own, n)[0]] == anchor + unit.offset]
        else:
            wanted = [anchor + unit.offset]
        places = []
        for number in wanted:
            inside = tokens(own, number) if number >= 0 else []
            if not inside or SEGMENTS[0][inside[0]] != SEGMENTS[0][first]:
                continue
            if unit.role is not None and ROLE[0][number] != ROLES.index(unit.role):
                continue
            there = tokens(read, number)
            if there:
                last = [there[-1] + unit.predictor_tokens]
                places += {"all": there, "first": there[:1], "last": last}[unit.pick]
        found.append(places)
    return found


OPTIONS = [
    Unit("fine", offset, pick, read, role, **others)
    for offset, pick, read, role, others in itertools.product(
        (-1, 0, 1, 2),
        ("last", "first", "all"),
        ("in_context", "alone"),
        (None, "user", "assistant"),
        ({}, {"parts_of": "coarse"}),
    )
    if not (others and pick == "all")
]
OPTIONS += [
    Unit("coarse", offset, pick, parent_of="fine") for offset in (-1, 0, 1) for pick in ("last", "first", "all")
]


@pytest.mark.parametrize("unit", OPTIONS, ids=str)
def test_positions_are_those_of_a_loop(unit):
    found = unit(made())
    assert found.shape[:2] == (1, len(naive(unit)))
    assert [[place for place in row if place >= 0] for row in found[0].tolist()] == naive(unit)


def test_without_roles_the_units_are_counted():
    sets = {"units/fine": FINE}
    assert Unit("fine", 1)(view(SEGMENTS, sets)).flatten().tolist() == [5, 6, -1, 9, -1]
    with pytest.raises(ValueError, match="does not say whose"):
        Unit("fine", role="user")(view(SEGMENTS, sets))


def test_predictor_tokens_stand_behind_a_unit():
    unit = Unit("fine", read="alone", predictor_tokens=2)
    assert unit(made()).flatten().tolist() == [12 + 2, 14 + 2, 16 + 2, 18 + 2, -1]


def test_a_batch_without_the_units_says_what_to_do():
    with pytest.raises(ValueError, match=r"no units 'sentence' \(grains: coarse, fine\).*with_units"):
        index(Unit("sentence"), made())
    with pytest.raises(ValueError, match="no unit 'coarse' that is read alone"):
        index(Unit("coarse", read="alone"), made())
    with pytest.raises(ValueError, match="has shape"):
        index(Unit("fine"), view(SEGMENTS, {"units/fine": [[0, 1]]}))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"parts_of": "a", "parent_of": "b"}, "two ways to choose anchors"),
        ({"parts_of": "fine"}, "a fine is no part of a fine"),
        ({"parts_of": "a", "pick": "all"}, "all tokens of all parts"),
        ({"predictor_tokens": 1}, "stand behind a unit that is read alone"),
        ({"predictor_tokens": -1, "read": "alone"}, "use 0 or more"),
    ],
)
def test_options_that_do_not_go_together(options, line):
    with pytest.raises(ValueError, match=line):
        Unit("fine", **options)


def test_ids_of_a_unit_are_those_that_were_read():
    made_view = made()
    ids = ids_of(Unit("fine", 1, "all"), made_view)
    expected = [[made_view.inputs[0, k].item() for k in places] for places in naive(Unit("fine", 1, "all"))]
    assert [[token for token in row if token >= 0] for row in ids[0].tolist()] == expected
    for target in (Tokens(ids=Unit("fine", 1, "all")), TokenEmbeddings(Unit("fine", 1, "all"))):
        assert target.mask(made_view).any(1).tolist() == [bool(row) for row in expected]
    with pytest.raises(ValueError, match="use pick: all"):
        Tokens(ids=Unit("fine", 1))


def test_what_has_to_be_read_alone():
    units = [
        Unit("turn", role="user", read="alone", predictor_tokens=2),
        Unit("turn", 1, role="assistant", read="alone"),
        Unit("sentence", 1, read="alone"),
        Unit("sentence", parts_of="turn", read="alone"),
        Unit("chunk", 2, read="alone"),
        Unit("line"),
    ]
    assert units_alone(units) == (
        UnitsAlone("turn", (1, 2), 2, 0),
        UnitsAlone("sentence", None, 0, 0),
        UnitsAlone("chunk", None, 0, 2),
    )
    assert UnitsAlone("turn", (1,), 0, 1).has(1, 1)
    assert not UnitsAlone("turn", (1,), 0, 1).has(0, 1)
    assert not UnitsAlone("turn", (1,), 0, 1).has(1, 2)


def test_gradient_stays_where_the_positions_are():
    made_view = made()
    where = Unit("fine", 1, read="alone")(made_view)
    made_view.states[2][0, where[where >= 0]].sum().backward()
    touched = made_view.states[2].grad[0].abs().sum(-1) > 0
    assert torch.arange(20)[touched].tolist() == [14, 16]  # unit 3 is of the other document
