"""Where nothing varies but the rounding of float32 there is no score: null, a warning named `collapsed`, no error."""

import numpy as np
import pytest
import torch
from latentlm_evals.coherence import Options, run, table
from latentlm_evals.coherence.measures.bilinear import bilinear_composition, bilinear_inverse
from latentlm_evals.coherence.measures.binding import fact_unification, role_consistency
from latentlm_evals.coherence.measures.equivariance import equivariance, fit_action
from latentlm_evals.coherence.measures.invariance import concept_subspace, detail_and_invariance
from latentlm_evals.coherence.measures.stability import stability
from latentlm_evals.coherence.runner import measure
from latentlm_evals.coherence.stimuli import CATEGORIES, countries, mentions, numbers, sentences, swaps
from latentlm_evals.models.interventions import Lens
from latentlm_evals.models.text_encoder import load_encoder
from latentlm_evals.probes.context_probes import CoherenceWarning, Family
from latentlm_evals.probes.pca import Space
from latentlm_evals.statistics.arrays import alive
from rich.console import Console
from tiny_models import build

from latentlm.data import word_tokenizer

SMALL = Options(depths=("1/2",), nouns=3, entities=15, pairs=2, updates=2, components=8, random_init=False)
NOUNS = ("stability", "detail", "units", "causal")


def rounded(rows=60, dim=24, seed=0):
    """One state over and over, each time with the rounding of another order of summation."""
    draw = np.random.default_rng(seed)
    state = np.float32(draw.standard_normal(dim) * np.geomspace(0.01, 100, dim))
    return (state * (1 + 3e-7 * draw.standard_normal((rows, dim)))).astype(np.float32).astype(float)


def save(folder, kind, equal):
    moved = [text for row in [*sentences(), *swaps(), *numbers()] for text in row.texts.values()]
    facts = [f"The capital of {a} is {b}. People say that the {c} {b} is the capital of" for a, b, c in countries()]
    asked = [f"{row.text}, a kind of that is are {' '.join(CATEGORIES)}" for row in mentions()]
    tokenizer = word_tokenizer([*asked, *moved, *facts])
    torch.manual_seed(0)
    model = build(kind, vocab_size=len(tokenizer), max_position_embeddings=128)
    if equal:
        with torch.no_grad():
            weight = model.get_input_embeddings().weight
            weight.copy_(weight[:1].expand_as(weight).clone())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    return run(save(tmp_path_factory.mktemp("collapsed"), "llama", equal=True), SMALL)


def test_a_collapsed_model_has_nulls_and_a_named_warning_in_every_section(scored):
    result = scored.to_lm_eval()
    tasks = {task.split("/")[1] for task in result["results"]}
    assert tasks == set(SMALL.sections)
    for task, row in result["results"].items():
        assert all(value is None for key, value in row.items() if key != "alias"), task
    for section in SMALL.sections:
        assert any(note.startswith(section) and "collapsed" in note for note in result["warnings"]), section
    console = Console(width=200, record=True)
    for view in table({"tiny": scored}):
        console.print(view)
    assert "Coherence: coupling" in console.export_text()


def test_states_that_know_nothing_but_their_position_have_no_scores_of_words(tmp_path):
    """Every dimension is alive, between positions; inside a context there is rounding alone."""
    found = run(save(tmp_path, "gpt2", equal=True), SMALL).to_lm_eval()
    rows = {task.removeprefix("coherence/"): row for task, row in found["results"].items()}
    for task, key in (
        *(("stability/category@2", key) for key in ("crs", "fracture", "mcs")),
        *(("detail/number@2", key) for key in ("inv", "leak", "joint")),
        ("units/number@2", "effective_units"),
        *(("causal/number@2", key) for key in ("answered", "cause", "amnesic")),
        *((f"equivariance/{name}@2", key) for name in ("past", "swap") for key in ("eq", "eq_gain", "law_gain")),
        *(("binding/capital@2", key) for key in ("rc_id", "rc_lin", "u", "bilinear", "composition")),
        ("coupling/capital", "t"),
    ):
        assert rows[task][f"{key},none"] is None, (task, key)
    assert {note.split("/")[0].split("@")[0] for note in found["warnings"] if "collapsed" in note} >= {
        "stability",
        "detail",
        "causal",
        "equivariance",
        "binding",
        "coupling",
    }


@pytest.mark.slow
def test_a_collapsed_depth_of_a_healthy_model_does_not_touch_the_others(tmp_path):
    lens = Lens(load_encoder(save(tmp_path, "llama", equal=False), "cpu"))
    before = measure(lens, [1], SMALL).scores

    def flatten(module, args, output):
        state = output[0] if isinstance(output, tuple) else output
        flat = torch.ones_like(state)
        return (flat, *output[1:]) if isinstance(output, tuple) else flat

    lens.backbone.layers[1].register_forward_hook(flatten)
    found = measure(lens, [1, 2], SMALL)
    for section in ("stability", "detail", "units", "equivariance", "binding"):
        mine = {task: row for task, row in found.scores.items() if task.startswith(section)}
        assert all(np.isnan(v) for task, row in mine.items() if task.endswith("@2") for v in row.values()), section
        for task, row in mine.items():
            if task.endswith("@1"):
                assert row == pytest.approx(before[task], nan_ok=True), task
        assert any(note.startswith(section) and "@2: collapsed" in note for note in found.notes), section
        assert not any(note.startswith(section) and "@1: collapsed" in note for note in found.notes), section
    assert np.isnan(found.scores["causal/number@2"]["cause"])


def test_rounding_is_no_spread_and_small_states_are_states():
    assert not alive(rounded()).any()
    assert Space.fit(rounded(), 8).is_collapsed
    assert np.isnan(Space.fit(rounded(), 8).explained)
    draw = np.random.default_rng(0)
    tiny = 1e-8 * draw.standard_normal((60, 24))  # small as a whole is not collapsed
    assert alive(tiny).all()
    mixed = rounded() + np.eye(24)[3] * draw.standard_normal((60, 1))
    np.testing.assert_array_equal(np.flatnonzero(alive(mixed)), [3])
    # a dimension near zero has the rounding of the sum that it is the rest of
    near = np.ones((60, 3)) + [0, 0, -1] + 1e-7 * draw.standard_normal((60, 3))
    assert not alive(near).any()


def said(function, *args):
    """What it returns, and all that it warns of."""
    with pytest.warns(CoherenceWarning) as caught:
        found = function(*args)
    return found, "; ".join(str(warning.message) for warning in caught)


def test_collapsed_arrays_are_nan_by_name():
    labels = np.arange(60) % 2
    family = Family(rounded(), labels, rounded(seed=0), labels)
    found, told = said(stability, [family, family])
    assert "collapsed: class means do not differ in a family" in told
    assert np.isnan([found.crs, found.mcs, found.lofo, found.fracture, found.consolidation]).all()
    subspace, told = said(concept_subspace, [family, family])
    assert "collapsed: class means do not differ" in told
    assert subspace.shape == (0, 24)
    nuisance = {"z": (labels, labels)}
    found, told = said(detail_and_invariance, subspace, rounded(), rounded(), labels, nuisance, None, labels)
    assert "collapsed: all states are alike" in told
    assert np.isnan(list(found.values())).all()
    # a subspace found elsewhere does not help
    found, told = said(detail_and_invariance, np.eye(24)[:2], rounded(), rounded(), labels, nuisance)
    assert "collapsed: states do not vary inside" in told
    assert np.isnan(found["inv"])


def test_collapsed_pairs_are_nan_by_name():
    one, other, fine = rounded(), rounded(seed=1), np.random.default_rng(0).standard_normal((60, 24))
    for left, right in ((one, other), (one, fine), (fine, one)):
        found, told = said(role_consistency, left, right)
        assert "collapsed: all entities" in told
        assert np.isnan([found[key] for key in ("rc_id", "rc_lin", "rc_lin_shuffled", "rc_lin_low")]).all()
        found, told = said(fact_unification, left, right)
        assert "collapsed: all facts" in told
        assert np.isnan([found[key] for key in ("u", "u_low", "u_null_sd", "u_mrr")]).all()
        found, told = said(bilinear_inverse, left, right, fine, fine)
        assert "collapsed: all pairs" in told
        assert np.isnan([found["bilinear"], found["bilinear_inverse"]]).all()
        found, told = said(bilinear_composition, left, right, fine)
        assert "collapsed: all chains" in told
        assert np.isnan(found["composition"])
    found, told = said(equivariance, fit_action(fine, fine), one, one)
    assert "collapsed: h(gx) is the same" in told
    assert np.isnan([found[key] for key in ("eq", "eq_gain", "h@1", "mrr")]).all()
