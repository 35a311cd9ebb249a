import numpy as np
import pytest
from latentlm_evals.coherence.measures.bilinear import bilinear_composition, bilinear_inverse
from latentlm_evals.coherence.measures.binding import fact_unification, role_consistency, update_coupling
from latentlm_evals.probes.context_probes import CoherenceWarning
from latentlm_evals.statistics.ranking import by_cosine, chance_mrr


def draws(num=60, dim=24, noise=0.3, seed=0):
    """Two entities' worth of everything: states, a rotation, another set of states, noise."""
    draw = np.random.default_rng(seed)
    turn = np.linalg.qr(draw.standard_normal((dim, dim)))[0]
    one, two = draw.standard_normal((2, num, dim))
    return one, turn, two, lambda: noise * draw.standard_normal((num, dim))


def test_role_consistency_separates_one_entity_a_rotated_one_and_two():
    states, turn, other, noise = draws()
    same = role_consistency(states + noise(), states + noise())
    rotated = role_consistency(states + noise() + 3, states @ turn + noise())
    two = role_consistency(states, other)
    assert same["rc_id"] > 0.95
    assert rotated["rc_id"] < 0.3  # not the same place
    assert rotated["rc_lin"] > 0.95  # but the same entity behind one map
    for score in (two["rc_id"], two["rc_lin"], same["rc_lin_shuffled"], rotated["rc_lin_shuffled"]):
        assert score < 3 * chance_mrr(60)


def test_with_fewer_entities_than_dimensions_nothing_is_made_up():
    draw = np.random.default_rng(0)
    found = role_consistency(draw.standard_normal((30, 200)), draw.standard_normal((30, 200)))
    assert found["rc_lin"] < 3 * found["rc_chance"]


def test_unification_is_the_equation_and_separates():
    states, _, other, noise = draws()
    f, g = states + noise(), states + noise()
    one, two = fact_unification(f, g), fact_unification(states, other)
    fc, gc = f - f.mean(0), g - g.mean(0)
    cos = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in gc] for a in fc]
    off = [cos[i][j] for i in range(60) for j in range(60) if i != j]
    assert one["u"] == pytest.approx((np.mean([cos[i][i] for i in range(60)]) - np.mean(off)) / np.std(off))
    assert one["u"] > 4
    assert one["u_mrr"] > 0.95
    assert abs(two["u"]) < 3 * two["u_null_sd"]


def test_sharing_an_entity_is_not_being_one_fact():
    """The query carries its subject only: facts with a common entity look as alike as the two sides of one fact."""
    draw = np.random.default_rng(0)
    person = np.repeat(draw.standard_normal((30, 24)), 2, axis=0)  # two facts about each person
    shared = np.kron(np.eye(30), np.ones((2, 2))).astype(bool) & ~np.eye(60, dtype=bool)
    noise = 0.3 * draw.standard_normal((3, 60, 24))
    fact = draw.standard_normal((60, 24))
    illusion = fact_unification(person + noise[0], person + noise[1], shared)
    whole = fact_unification(person + fact + noise[0], person + fact + noise[1], shared)
    assert illusion["u"] == pytest.approx(illusion["u_null"], rel=0.1)
    assert whole["u"] > 1.5 * whole["u_null"]


def test_where_no_fact_shares_an_entity_that_null_is_left_out():
    states, _, _, noise = draws()
    alone = fact_unification(states + noise(), states + noise(), np.zeros((60, 60), bool))
    assert "u_null" not in alone
    assert alone["u_null_sd"] == pytest.approx(1 / np.sqrt(60), rel=0.3)


def test_coupling_separates_one_fact_two_and_a_drift_of_everything():
    forward, drift = np.full(8, 2.0), np.full(8, 0.5)
    assert update_coupling(forward, forward, 0 * forward)["t"] == pytest.approx(1)
    assert update_coupling(forward, 0 * forward, 0 * forward)["t"] == pytest.approx(0)
    everything = update_coupling(forward, drift, drift)
    assert everything["t"] == pytest.approx(0)
    assert everything["t_unrelated"] == pytest.approx(0.25)
    with pytest.warns(CoherenceWarning, match="no_update"):
        assert np.isnan(update_coupling(0 * forward, forward, drift)["t"])
    with pytest.raises(ValueError, match="diverged"):
        update_coupling(np.full(8, np.nan), forward, drift)


def test_the_transpose_answers_the_inverse_only_where_both_directions_share_states():
    states, turn, other, noise = draws(num=150, dim=12)
    objects = states @ turn
    whole = bilinear_inverse(states + noise(), objects + noise(), objects + noise(), states + noise())
    # reverse contexts with states of their own: the same relation, but another map
    second = np.linalg.qr(np.random.default_rng(5).standard_normal((12, 12)))[0]
    broken = bilinear_inverse(states + noise(), objects + noise(), other + noise(), other @ second + noise())
    assert whole["bilinear"] > 0.9
    assert whole["bilinear_inverse"] > 0.9
    assert broken["bilinear"] > 0.9
    assert broken["bilinear_inverse"] < 0.15
    assert whole["bilinear_shuffled"] < 0.15
    assert whole["bilinear_inverse_shuffled"] < 0.15


def test_composition_of_two_maps():
    states, turn, other, noise = draws(num=150, dim=12)
    middle = states @ turn
    chain = bilinear_composition(states + noise(), middle + noise(), middle @ turn + noise())
    assert chain["composition"] > 0.9
    assert chain["composition_shuffled"] < 0.15
    assert bilinear_composition(states, middle, other)["composition"] < 0.15  # the second relation is no map of states


def test_ties_are_broken_by_lot():
    flat = np.ones((9, 3))
    np.testing.assert_allclose(by_cosine(flat, flat), chance_mrr(9))  # equal keys are at chance, .31 and not 1 / 5
    np.testing.assert_allclose(by_cosine(np.eye(4), np.eye(4)), 1)
    # two keys ahead, three level: the mean over the orders of the three
    query, keys = np.array([[1.0, 0]]), np.array([[0.0, 1], [1, 0], [0, 2], [1, 0], [0, 3]])
    assert by_cosine(query, keys, np.array([2])) == pytest.approx((1 / 3 + 1 / 4 + 1 / 5) / 3)
    draw, found = np.random.default_rng(0), []
    for _ in range(4000):
        order = draw.permutation(5)
        scores = keys[:, 0] + 1e-3 * draw.random(5)
        found.append(1 / (1 + (scores > scores[2]).sum()))
        assert by_cosine(query, keys[order], np.array([int(np.flatnonzero(order == 2)[0])])) == pytest.approx(47 / 180)
    assert np.mean(found) == pytest.approx(47 / 180, abs=0.01)


def test_bad_input_is_named():
    a = np.ones((12, 4))
    with pytest.raises(ValueError, match="same entities"):
        role_consistency(a, a[:11])
    with pytest.raises(ValueError, match="at least 10"):
        role_consistency(a[:5], a[:5])
    with pytest.raises(ValueError, match="NaN"):
        fact_unification(a * np.nan, a)
