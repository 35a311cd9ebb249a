import numpy as np
import pytest
from latentlm_evals.coherence.measures.invariance import concept_subspace, detail_and_invariance, joint
from latentlm_evals.probes.context_probes import Family

DIM, ROWS = 24, 200


def world(kind, seed=0):
    """Train and test families with a concept of three classes and a nuisance of four values."""
    draw = np.random.default_rng(seed)
    concept, nuisance, token = 3 * np.eye(DIM)[:3], 3 * np.eye(DIM)[4:8], 3 * np.eye(DIM)[10:20]
    halves = []
    for _ in range(4):
        y, z, t = draw.integers(0, 3, ROWS), draw.integers(0, 4, ROWS), draw.integers(0, 10, ROWS)
        noise = draw.standard_normal((ROWS, DIM))
        states = {
            "ideal": concept[y] + nuisance[z] + 0.5 * noise,
            "collapsed": concept[y] + 0.05 * noise[:, :1],
            "tokens": 0.2 * concept[y] + nuisance[z] + token[t] + 0.5 * noise,
            # the concept's place depends on the nuisance
            "fractured": (concept[y] * np.where(z < 2, 1.0, -0.5)[:, None] + nuisance[z]) + 0.5 * noise,
        }[kind]
        halves.append((states, y, z))
    return halves


def measure(kind, base=None):
    a, b, train, test = world(kind)
    families = [Family(x[:150], y[:150], x[150:], y[150:]) for x, y, _ in (a, b)]
    subspace = concept_subspace(families)
    return detail_and_invariance(subspace, train[0], test[0], test[1], {"nuisance": (train[2], test[2])}, base)


def test_only_the_ideal_state_has_both():
    found = {kind: measure(kind) for kind in ("ideal", "collapsed", "tokens", "fractured")}
    assert found["ideal"]["inv"] > 0.8
    assert found["ideal"]["detail"] > 0.9
    assert found["ideal"]["leak"] < 0.1
    assert found["collapsed"]["inv"] > 0.95
    assert found["collapsed"]["detail"] < 0.1
    assert found["tokens"]["inv"] < 0.6
    assert found["tokens"]["detail"] > 0.9
    assert found["fractured"]["inv"] < found["ideal"]["inv"] - 0.2
    assert found["fractured"]["leak"] > found["ideal"]["leak"] + 0.1
    for kind in ("collapsed", "tokens", "fractured"):
        assert found[kind]["joint"] < found["ideal"]["joint"] - 0.1, kind


def test_shuffled_labels_have_no_invariance():
    a, b, train, test = world("ideal")
    draw = np.random.default_rng(0)
    families = [Family(x[:150], draw.permutation(y[:150]), x[150:], y[150:]) for x, y, _ in (a, b)]
    found = detail_and_invariance(concept_subspace(families), train[0], test[0], test[1], {"z": (train[2], test[2])})
    assert found["inv"] < 0.5 * measure("ideal")["inv"]


def test_detail_counts_what_the_base_model_had():
    assert measure("ideal", base=0.5)["detail"] == pytest.approx(2 * measure("ideal")["detail"])
    with pytest.raises(ValueError, match="base_detail"):
        measure("ideal", base=0.0)


def test_joint_is_a_harmonic_mean():
    assert joint(1.0, 1.0) == 1
    assert joint(0.5, 1.0) == pytest.approx(2 / 3)
    assert joint(0.0, 1.0) == 0
    assert joint(-0.2, 3.0) == 0
    assert np.isnan(joint(0.5, float("nan")))
