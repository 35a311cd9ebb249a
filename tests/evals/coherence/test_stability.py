import numpy as np
import pytest
from latentlm_evals.coherence.measures.stability import fracture, probe_cosine, stability
from latentlm_evals.probes.context_probes import CoherenceWarning, Family
from synthetic_features import binary_families, class_families

# within, CRS, MCS, C, Fracture: mean of 5 draws
TABLE = {
    "unified": (0.93, 0.99, 0.96, 0.95, 0.10),
    "partial": (0.94, 0.67, 0.75, 0.61, 0.66),
    "fractured": (0.92, 0.06, 0.04, 0.32, 0.97),
}


@pytest.fixture(scope="module")
def scores():
    return {kind: [stability(binary_families(kind, seed)) for seed in range(5)] for kind in TABLE}


@pytest.mark.parametrize("kind", TABLE)
def test_known_answers(scores, kind):
    names = ("within", "crs", "mcs", "consolidation", "fracture")
    found = [np.mean([getattr(score, name) for score in scores[kind]]) for name in names]
    # means of five draws of unit noise: CRS of unrelated directions has the widest spread
    np.testing.assert_allclose(found, TABLE[kind], atol=0.06)


def test_within_family_skill_is_blind_and_every_other_score_is_not(scores):
    means = {
        name: [np.mean([getattr(s, name) for s in scores[kind]]) for kind in TABLE]
        for name in scores["unified"][0].__dict__
        if name != "intervals"
    }
    assert np.ptp(means["within"]) < 0.03
    for name in ("crs", "crs_min", "crs_raw", "lofo", "mcs", "consolidation"):
        one, part, own = means[name]
        assert one > part + 0.1 > own + 0.2, name
    for name in ("num_readouts", "fracture"):
        one, part, own = means[name]
        assert one < part - 0.2 < own - 0.4, name
    assert 1 <= means["num_readouts"][0] < 1.5
    assert 3.5 < means["num_readouts"][2] <= 4


def test_refitting_the_bias_undoes_the_offset_of_a_family(scores):
    assert all(score.crs > score.crs_raw + 0.05 for score in scores["unified"])


@pytest.mark.parametrize("kind", ["collapsed", "tokens"])
def test_without_a_readout_there_is_no_stability_but_a_named_warning(kind):
    with pytest.warns(CoherenceWarning, match="unreadable"):
        score = stability(binary_families(kind, 0))
    assert abs(score.within) < 0.1
    assert all(np.isnan(getattr(score, name)) for name in ("crs", "crs_min", "crs_raw", "lofo", "mcs"))


def test_shuffled_labels_are_the_null():
    draw = np.random.default_rng(0)
    families = [f.relabelled(draw.permutation(f.train_labels), f.test_labels) for f in binary_families("unified", 0)]
    assert fracture(families)[2] > 0.9  # against .10 with the labels
    with pytest.warns(CoherenceWarning, match="unreadable"):
        assert stability(families).within < 0.1


def test_several_classes_separate_too():
    found = {kind: stability(class_families(kind, 0)) for kind in ("unified", "partial", "fractured", "permuted")}
    one, part, own = (found[kind].fracture for kind in ("unified", "partial", "fractured"))
    assert one < 0.15 < part < own - 0.1  # random subspaces of three dimensions overlap a little
    assert found["unified"].crs > 0.95 > found["partial"].crs > 0.4 > found["fractured"].crs
    # one subspace, another place for each class: only the transfer can tell
    assert found["permuted"].fracture < 0.15
    assert found["permuted"].crs < 0.4


def test_two_families_give_principal_angles():
    draw = np.random.default_rng(0)
    angle = 0.4
    directions = np.array([[1.0, 0, 0], [np.cos(angle), np.sin(angle), 0]])
    labels = np.arange(20000) % 2
    noise = draw.standard_normal((20000, 3))
    families = [
        Family(x[:10000], labels[:10000], x[10000:], labels[10000:])
        for x in (noise + np.outer(40 * labels, u) for u in directions)
    ]
    q = (1 + np.cos(angle)) / 2
    count = np.exp(-(q * np.log(q) + (1 - q) * np.log(1 - q)))
    np.testing.assert_allclose(fracture(families), (q, count, count - 1), atol=0.01)


def test_probe_cosine_is_the_equation():
    draw = np.random.default_rng(0)
    w, x = [draw.standard_normal((1, 5)) for _ in range(3)], [draw.standard_normal((50, 5)) for _ in range(3)]
    loop = []
    for a in range(3):
        for b in range(3):
            if a != b:
                s = np.cov(x[b].T)
                loop.append((w[a] @ s @ w[b].T / np.sqrt((w[a] @ s @ w[a].T) * (w[b] @ s @ w[b].T))).item())
    assert probe_cosine(w, x) == pytest.approx(np.mean(loop))
    assert probe_cosine([w[0], w[0]], x[:2]) == pytest.approx(1)


def test_scores_do_not_depend_on_rotation_or_the_order_of_families():
    families = class_families("partial", 1, dim=16)
    before = stability(families)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((16, 16)))[0]
    after = stability([Family(f.train @ turn, f.train_labels, f.test @ turn, f.test_labels) for f in families[::-1]])
    for name in ("within", "crs", "lofo", "mcs", "consolidation", "fracture"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), abs=0.02), name


def test_bad_input_is_named():
    good = binary_families("unified", 0, rows=200)
    states, labels = good[0].train, good[0].train_labels
    broken = states.copy()
    broken[3, 2] = np.nan
    with pytest.raises(ValueError, match="1 of 100 states hold NaN"):
        Family(broken, labels, states, labels)
    with pytest.raises(ValueError, match="two classes"):
        Family(states, 0 * labels, states, labels)
    with pytest.raises(ValueError, match="two at least"):
        stability(good[:1])
    with pytest.raises(ValueError, match="same classes"):
        stability([good[0], good[1].relabelled(good[1].train_labels + 1, good[1].test_labels + 1)])
    with pytest.warns(CoherenceWarning, match="few_samples: 20 training states of 64"):
        stability(binary_families("unified", 0, rows=40))
