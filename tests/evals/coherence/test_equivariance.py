import numpy as np
import pytest
from latentlm_evals.coherence.measures.equivariance import PENALTIES, Frame, equivariance, fit_action, law
from latentlm_evals.probes.context_probes import CoherenceWarning

DIM = 12


def turn(angle):
    """Rotation of the first two coordinates."""
    matrix = np.eye(DIM)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


def states(seed=0, num=80):
    return np.random.default_rng(seed).standard_normal((num, DIM))


def score(before, after, test_before, test_after):
    return equivariance(fit_action(before, after), test_before, test_after)


def test_a_rotation_and_a_shift_are_found_and_generalise():
    x, y, noise = states(), states(1), 0.05 * np.random.default_rng(2).standard_normal((2, 80, DIM))
    rotated = score(x, x @ turn(1.2).T + noise[0], y, y @ turn(1.2).T + noise[1])
    shifted = score(x, x + 2 + noise[0], y, y + 2 + noise[1])
    for found in (rotated, shifted):
        assert found["eq"] > 0.95
        assert found["eq_gain"] > 0.95
        assert found["h@1"] > 0.95


def test_merely_invariant_states_have_eq_but_no_gain():
    x, y, noise = states(), states(1), 0.2 * np.random.default_rng(2).standard_normal((2, 80, DIM))
    found = score(x, x + noise[0], y, y + noise[1])
    assert found["eq"] > 0.9
    assert found["eq_gain"] < 0.15
    assert found["h@1"] < 0.6  # h(x) itself is a candidate
    with pytest.warns(CoherenceWarning, match="invariant"):
        still = score(x, x, y, y)
    assert np.isnan(still["eq_gain"])
    assert still["h@1"] == 0


def test_unrelated_states_and_shuffled_pairs_have_no_gain():
    x, y = states(), states(1)
    gone = score(x, states(3), y, states(4))
    assert gone["eq"] < 0.1
    assert gone["h@1"] < 0.1
    shuffled = np.random.default_rng(5).permutation(80)
    null = score(x, x[shuffled] @ turn(1.2).T, y, y @ turn(1.2).T)
    assert null["eq"] < 0.1
    assert null["h@1"] < 0.1


def test_the_equations():
    action, x, y = fit_action(states(), states(3)), states(1, 20), states(4, 20)
    error = sum(np.sum((b - (action.matrix @ a + action.offset)) ** 2) for a, b in zip(x, y, strict=True))
    found = equivariance(action, x, y)
    assert found["eq"] == pytest.approx(1 - error / np.sum((y - y.mean(0)) ** 2))
    assert found["eq_gain"] == pytest.approx(1 - error / np.sum((y - x) ** 2))


def test_group_laws_hold_for_a_group_only():
    x = states()
    act = {name: fit_action(x, x @ turn(angle).T) for name, angle in (("g", 0.7), ("back", -0.7), ("twice", 1.4))}
    frame = Frame.of(x, 6)
    assert law([act["g"], act["back"]], None, frame)["gain"] > 0.95
    assert law([act["g"], act["g"]], act["twice"], frame)["gain"] > 0.95
    assert law([act["g"], act["g"]], act["g"], frame)["gain"] < 0.3
    shift = fit_action(x, x + 2)
    assert law([shift, shift], fit_action(x, x + 4), frame)["gain"] > 0.95
    assert law([shift, shift], None, frame)["gain"] < 0


def test_a_law_of_maps_that_do_nothing_does_not_count():
    idle, frame = fit_action(states(), states()), Frame.of(states(), 6)
    with pytest.warns(CoherenceWarning, match="idle"):
        found = law([idle, idle], None, frame)
    assert found["error"] < 1e-6
    assert np.isnan(found["gain"])


def test_the_penalty_is_the_one_with_the_least_leave_one_out_error_and_shrinks_towards_the_identity():
    x, y = states(num=20), states(1, num=20)
    y = x @ turn(0.3).T + 0.3 * y

    def error(penalty):
        rest = [np.delete(np.arange(20), i) for i in range(20)]
        size = ((x - x.mean(0)) ** 2).sum() / min(x.shape)
        misses = []
        for i, kept in enumerate(rest):
            own = ((x[kept] - x[kept].mean(0)) ** 2).sum() / min(x[kept].shape)
            misses.append(((fit_action(x[kept], y[kept], penalty * size / own)(x[i : i + 1]) - y[i]) ** 2).sum())
        return sum(misses)

    best = min(PENALTIES, key=error)
    np.testing.assert_allclose(fit_action(x, y).matrix, fit_action(x, y, best).matrix, atol=1e-9)
    np.testing.assert_allclose(fit_action(x, y, 1e9).matrix, np.eye(DIM), atol=1e-6)
