import numpy as np
import pytest
from latentlm_evals.coherence.probes import CoherenceWarning
from latentlm_evals.coherence.units import contributions, flip_coherence, linear_contributions, unit_measures


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
        assert np.isnan(flip_coherence(np.zeros((3, 10)))["flips_together"])
