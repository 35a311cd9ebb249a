import numpy as np
import pytest
from latentlm_evals.coherence.measures.unit_attribution import (
    contributions,
    flip_coherence,
    linear_contributions,
    unit_measures,
)
from latentlm_evals.probes.context_probes import CoherenceWarning, fit_probe
from synthetic_features import binary_families

KINDS = ("unified", "partial", "fractured", "collapsed", "tokens")


@pytest.fixture(scope="module", params=[False, True], ids=["turned", "aligned"])
def known(request):
    """Measures of the readout of all families, mean of three draws, and whether the shared direction is a unit."""
    found = {}
    for kind in KINDS:
        draws = []
        for seed in range(3):
            families = binary_families(kind, seed, aligned=request.param)
            train = np.concatenate([family.train - family.train.mean(0) for family in families])
            test = np.concatenate([family.test - family.test.mean(0) for family in families])
            weights = fit_probe(train, np.concatenate([family.train_labels for family in families])).coef_
            draws.append(unit_measures(linear_contributions(weights, test)))
        found[kind] = {name: np.mean([draw[name] for draw in draws]) for name in draws[0]}
    return found, request.param


@pytest.mark.parametrize("name", ["effective_units", "gini", "contribution_rank"])
def test_units_separate_one_direction_from_many_if_it_is_a_unit_and_only_then(known, name):
    """None of the three is invariant to a turn of the basis: a shared direction of many units looks fractured."""
    found, aligned = known
    one, part, own = (found[kind][name] for kind in ("unified", "partial", "fractured"))
    if aligned:
        sign = -1 if name == "gini" else 1
        assert sign * one < sign * part < sign * own
        assert abs(own - one) > 0.15 * own
    else:
        assert np.ptp([one, part, own]) < 0.2 * own


def test_units_cannot_tell_collapse_but_tell_tokens_that_are_units(known):
    """They are free of scale, so noise of any size counts like a concept's own directions; `unreadable` tells that."""
    found, _ = known
    own, tokens = found["fractured"], found["tokens"]
    for name, value in found["collapsed"].items():
        assert value == pytest.approx(own[name], rel=0.1), name
    assert tokens["effective_units"] < 0.7 * own["effective_units"]  # each input is one unit
    assert tokens["gini"] > own["gini"] + 0.05
    assert tokens["contribution_rank"] > own["contribution_rank"]  # but another one each time


def test_linear_contributions_are_the_ablation_loop():
    draw = np.random.default_rng(0)
    weights, states = draw.standard_normal((3, 7)), draw.standard_normal((20, 7)) + 1
    np.testing.assert_allclose(
        linear_contributions(weights, states), contributions(lambda h: h @ weights.T, states), atol=1e-12
    )


def test_one_unit_and_many_separate():
    draw = np.random.default_rng(0)
    states = draw.standard_normal((50, 16))
    one = unit_measures(linear_contributions(np.eye(16)[:1], states))
    many = unit_measures(linear_contributions(np.ones((1, 16)), np.sign(states) - np.sign(states).mean(0)))
    assert one["effective_units"] == pytest.approx(1)
    assert one["gini"] == pytest.approx(15 / 16)
    assert one["contribution_rank"] == pytest.approx(1)
    assert many["effective_units"] > 12
    assert many["gini"] < 0.25
    alike = unit_measures(np.ones((5, 16)))
    assert alike["effective_units"] == pytest.approx(16)
    assert alike["gini"] == pytest.approx(0)


def test_the_order_of_units_does_not_matter():
    parts = np.random.default_rng(0).random((10, 6))
    assert unit_measures(parts) == pytest.approx(unit_measures(parts[:, ::-1]))


def test_a_dead_readout_is_named():
    with pytest.warns(CoherenceWarning, match="dead"):
        assert np.isnan(unit_measures(np.zeros((4, 3)))["gini"])
    with pytest.raises(ValueError, match="norms"):
        unit_measures(np.array([[1.0, np.nan]]))


def test_flips_together_and_apart():
    draw = np.random.default_rng(0)
    one = draw.random(400) < 0.2
    together = flip_coherence(np.stack([one, one, one]))
    apart = flip_coherence(draw.random((3, 400)) < 0.2)
    partly = flip_coherence(np.where(draw.random((3, 400)) < 0.5, one, draw.random((3, 400)) < 0.2))
    assert together["flips_together"] == pytest.approx(1)
    assert apart["flips_together"] < 0.03
    assert apart["flips_together"] < partly["flips_together"] < 0.9
    assert together["flips_together_shuffled"] < 0.03
    with pytest.warns(CoherenceWarning, match="no_flips"):
        assert np.isnan(flip_coherence(np.zeros((3, 10), bool))["flips_together"])
