import numpy as np
import pytest
from latentlm_evals.coherence.measures.binding import fact_unification, role_consistency, update_coupling
from latentlm_evals.coherence.measures.equivariance import equivariance, fit_action
from latentlm_evals.coherence.measures.invariance import concept_subspace, detail_and_invariance
from latentlm_evals.coherence.measures.stability import fracture, stability
from latentlm_evals.probes.context_probes import Family
from latentlm_evals.statistics.bootstrap import draws, interval, jackknife, mean_interval


def test_whole_entities_are_drawn_and_labels_keep_their_frequency():
    entities, labels = np.repeat(np.arange(8), 3), np.repeat(np.arange(8) % 2, 3)
    counts = draws(entities, labels, rounds=200)
    assert (counts.sum(1) == 24).all()
    assert (counts[:, ::3] == counts[:, 1::3]).all()  # all rows of an entity or none
    assert (counts[:, labels == 1].sum(1) == 12).all()
    mixed = draws(entities, np.arange(24) % 2, rounds=200)  # entities with both labels are drawn freely
    np.testing.assert_array_equal(mixed, draws(entities, rounds=200))
    assert counts.mean() == pytest.approx(1, abs=0.05)


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says():
    draw, inside, whole = np.random.default_rng(0), 0, 0
    for _ in range(200):
        entity = draw.standard_normal(40)
        values = np.repeat(entity, 5) + 0.1 * draw.standard_normal(200)
        found = mean_interval("x", values, np.repeat(np.arange(40), 5))
        inside += found["x_low"] < 0 < found["x_high"]
        rows = mean_interval("x", values)  # as if rows of one entity were independent
        whole += rows["x_low"] < 0 < rows["x_high"]
    assert 0.9 <= inside / 200 <= 0.98
    assert whole / 200 < 0.75


def test_draws_without_a_value_are_left_out_and_too_few_are_no_interval():
    some = np.concatenate([np.full(40, np.nan), np.arange(60.0)])
    assert interval("x", some) == pytest.approx({"x_low": 1.475, "x_high": 57.525})
    assert np.isnan(interval("x", np.full(9, np.nan))["x_low"])


def test_jackknife_of_a_mean_is_the_standard_error():
    values = np.random.default_rng(0).random(30)
    found = jackknife("x", np.array([np.delete(values, i).mean() for i in range(30)]), float(values.mean()))
    error = values.std(ddof=1) / np.sqrt(30)
    assert found["x_low"] == pytest.approx(values.mean() - 1.96 * error)
    assert found["x_high"] == pytest.approx(values.mean() + 1.96 * error)


def families(seed, own=0.12, entities=30, dim=16):
    """Entities that are off in a way of their own in every family; part of each family's direction is its own."""
    draw = np.random.default_rng(seed)
    shared = draw.standard_normal(dim)
    labels, things, off = np.arange(entities) % 2, np.arange(entities), draw.standard_normal((2, entities, dim))
    found = []
    for _ in range(4):
        direction = shared + own * np.linalg.norm(shared) * draw.standard_normal(dim)
        direction /= np.linalg.norm(direction)
        halves = []
        for half in (0, 1):
            states = 1.5 * np.outer(2 * labels - 1, direction) + off[half] + 0.5 * draw.standard_normal((entities, dim))
            halves += [states, labels]
        found.append(Family(*halves, things, things))
    return found


def test_crs_and_fracture_of_other_entities_lie_in_the_interval():
    """Intervals are as wide as scores of fresh draws vary: the sd is within a factor of two."""
    every = [stability(families(seed)) for seed in range(12)]
    for name in ("within", "crs", "fracture"):
        widths = [found.intervals[f"{name}_high"] - found.intervals[f"{name}_low"] for found in every]
        values = [getattr(found, name) for found in every]
        assert all(
            found.intervals[f"{name}_low"] <= value <= found.intervals[f"{name}_high"]
            for found, value in zip(every, values, strict=True)
        ), name
        assert 0.4 < np.mean(widths) / 3.92 / np.std(values, ddof=1) < 2.5, name
    nameless = [Family(f.train, f.train_labels, f.test, f.test_labels) for f in families(0)]
    assert stability(nameless).intervals == {}
    assert fracture(nameless)[2] == every[0].fracture


def test_scores_without_doubt_have_narrow_intervals_and_doubtful_ones_wide():
    draw = np.random.default_rng(0)
    x, y = draw.standard_normal((2, 40, 12))
    sure, lost = role_consistency(x, x + 0.01 * y), role_consistency(x, y)
    assert sure["rc_id_low"] > 0.99
    assert lost["rc_id_low"] < lost["rc_chance"] * 1.5
    one, two = fact_unification(x, x + y), fact_unification(x, y)
    assert one["u_low"] > 1
    assert two["u_low"] < 0 < two["u_high"]
    spread = two["u_high"] - two["u_low"]
    assert spread / 3.92 == pytest.approx(two["u_null_sd"], rel=0.5)
    # a group that stands and falls together says less than its facts one by one
    groups = np.repeat(np.arange(8), 5)
    pulled = y + np.repeat(3 * draw.standard_normal((8, 12)), 5, axis=0) * (np.arange(40) % 10 < 5)[:, None]
    alone, together = (fact_unification(x, pulled + x, clusters=c) for c in (None, groups))
    assert together["u_high"] - together["u_low"] > 1.2 * (alone["u_high"] - alone["u_low"])
    told = update_coupling(np.full(6, 2.0), np.array([2, 2, 2, 0, 0, 0.0]), np.zeros(6))
    assert told["t"] == 0.5
    assert told["t_low"] < 0.2
    assert told["t_high"] > 0.8
    exact = update_coupling(np.full(6, 2.0), np.full(6, 2.0), np.zeros(6))
    assert (exact["t_low"], exact["t_high"]) == (1, 1)


def test_eq_gain_is_drawn_by_entity():
    draw = np.random.default_rng(0)
    x, y = draw.standard_normal((2, 60, 6))
    action = fit_action(x, x + 1)
    twice = np.repeat(y[:20], 3, axis=0), np.repeat(y[:20] + 1 + 0.8 * draw.standard_normal((20, 6)), 3, axis=0)
    rows, entities = equivariance(action, *twice), equivariance(action, *twice, np.repeat(np.arange(20), 3))
    assert entities["eq_gain"] == rows["eq_gain"]
    assert entities["eq_gain_low"] < rows["eq_gain_low"] < rows["eq_gain"] < rows["eq_gain_high"]
    width = (entities["eq_gain_high"] - entities["eq_gain_low"]) / (rows["eq_gain_high"] - rows["eq_gain_low"])
    assert width == pytest.approx(np.sqrt(3), rel=0.2)


def test_joint_of_other_entities_lies_in_the_interval():
    """Four entities a class, each off in a way of its own: drawn twice they would raise Inv, so none is."""
    eye, labels, other = np.eye(12), np.repeat(np.arange(3), 24), np.arange(72) // 3 % 2
    things, values, widths = np.repeat(np.arange(12), 6), [], []
    for seed in range(40):
        draw = np.random.default_rng(seed)

        def states(draw=draw):
            own = np.repeat(draw.standard_normal((12, 12)), 6, axis=0)
            return 2 * eye[labels] + 2 * eye[4 + other] + own + 0.5 * draw.standard_normal((72, 12))

        subspace = concept_subspace([Family(states(), labels, states(), labels) for _ in range(2)])
        train, test, nuisance = states(), states(), {"z": (other, other)}
        found = detail_and_invariance(subspace, train, test, labels, nuisance, None, things)
        values.append(found["joint"])
        widths.append(found["joint_high"] - found["joint_low"])
        assert found["joint_low"] <= found["joint"] <= found["joint_high"]
    assert 0.4 < np.mean(widths) / 3.92 / np.std(values, ddof=1) < 2.5
    assert "joint_low" not in detail_and_invariance(subspace, train, test, labels, nuisance)
