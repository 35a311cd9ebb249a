import numpy as np
import pytest
from latentlm_evals.coherence.measures.causal import (
    amnesic_effect,
    disentangle,
    interchange,
    leace,
    random_eraser,
    row_space,
)
from latentlm_evals.probes.context_probes import fit_probe, probe_skill


def correlated(classes=2, rows=500, dim=10, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, rows)
    means = 2 * draw.standard_normal((classes, dim))
    return (means[labels] + draw.standard_normal((rows, dim))) @ draw.standard_normal((dim, dim)) + 5, labels


@pytest.mark.parametrize("classes", [2, 4])
def test_leace_leaves_nothing_linear_and_changes_least(classes):
    x, y = correlated(classes)
    eraser = leace(x, y)
    erased = eraser(x)
    assert eraser.rank == classes - 1
    one_hot = np.eye(classes)[y]
    cross = (erased - erased.mean(0)).T @ (one_hot - one_hot.mean(0)) / len(x)
    np.testing.assert_allclose(cross, 0, atol=1e-8)
    assert probe_skill(fit_probe(x, y, 1.0), x, y) > 0.7
    assert probe_skill(fit_probe(erased, y, 1.0), erased, y) < 0.05
    np.testing.assert_allclose(eraser(erased), erased, atol=1e-8)  # twice is once
    # the plain way: take the span of the class-mean differences away
    directions = row_space(np.stack([x[y == c].mean(0) for c in range(classes)]) - x.mean(0))
    plain = x - (x - x.mean(0)) @ directions.T @ directions
    white = np.linalg.inv(np.cov(x.T))

    def cost(new):
        return np.einsum("nd,de,ne->", new - x, white, new - x)

    assert cost(erased) < cost(plain)


def test_leace_is_the_equation():
    x, y = correlated(3)
    z = np.eye(3)[y]
    mu, xc, zc = x.mean(0), x - x.mean(0), z - z.mean(0)
    size, vectors = np.linalg.eigh(xc.T @ xc / len(x))
    w, w_inverse = (vectors * size**-0.5) @ vectors.T, (vectors * size**0.5) @ vectors.T
    target = w @ (xc.T @ zc / len(x))
    u = np.linalg.svd(target)[0][:, :2]
    naive = x - (w_inverse @ u @ u.T @ w @ (x - mu).T).T
    np.testing.assert_allclose(leace(x, y)(x), naive, atol=1e-6)


def test_the_random_control_has_the_rank_but_not_the_effect():
    x, y = correlated()
    control = random_eraser(x, 1, seed=1)
    erased = control(x)
    assert np.linalg.matrix_rank(np.cov(erased.T), tol=1e-8) == 9
    assert probe_skill(fit_probe(erased, y, 1.0), erased, y) > 0.6
    with pytest.raises(ValueError, match="only span"):
        random_eraser(x[:4], 5)
    found = amnesic_effect(np.zeros(4), np.full(4, 2.0), np.full(4, 0.5))
    assert found == {"amnesic": 1.5, "random_cost": 0.5}


def network(features, entangled=False):
    """Two attributes and what a model says of them; one reads the attribute off its own direction, one off both."""
    second = features[:, 1] + (1.5 * features[:, 0] if entangled else 0)
    return features[:, 0] > 0, second > 0


def scores(subspace, entangled=False):
    draw = np.random.default_rng(0)
    base, source = draw.choice([-1.0, 1.0], (2, 300, 6))
    mixed = interchange(base, source, subspace)
    before, wanted, after = network(base, entangled), network(source, entangled), network(mixed, entangled)
    differs = before[0] != wanted[0]
    return disentangle((after[0] == wanted[0])[differs], (after[1] == before[1])[differs])


def test_cause_and_isolate_separate_used_unused_and_entangled_subspaces():
    axis = np.eye(6)
    assert scores(axis[:1]) == {"cause": 1, "isolate": 1, "disentangle": 1}
    unused = scores(axis[3:4])
    assert unused["cause"] == 0
    assert unused["isolate"] == 1
    everything = scores(axis)  # to swap the whole state moves the other attribute as well
    assert everything["cause"] == 1
    assert everything["isolate"] < 0.65
    assert scores(axis[:1], entangled=True)["isolate"] < 0.65


def test_interchange_moves_the_subspace_only():
    draw = np.random.default_rng(0)
    base, source = draw.standard_normal((2, 5, 6))
    basis = row_space(draw.standard_normal((2, 6)))
    mixed = interchange(base, source, basis)
    np.testing.assert_allclose(mixed @ basis.T, source @ basis.T)
    rest = np.eye(6) - basis.T @ basis
    np.testing.assert_allclose(mixed @ rest, base @ rest)


def test_bad_input_is_named():
    x, y = correlated()
    with pytest.raises(ValueError, match="one label"):
        leace(x, 0 * y)
    with pytest.raises(ValueError, match="NaN"):
        leace(x * np.nan, y)
    with pytest.raises(ValueError, match="zero"):
        row_space(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="no interchanges"):
        disentangle(np.array([], bool), np.ones(2, bool))
