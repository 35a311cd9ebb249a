"""Probes on states of known truth: what is there is found, what is not is not, and the nulls say so."""

import dataclasses
import math
import random
from functools import partial

import numpy as np
import pytest
import torch
from latentlm_evals.models.text_encoder import TextEncoder
from latentlm_evals.probes.layerwise import (
    axes,
    codelength,
    cross_entropy,
    fit_linear,
    fit_mlp,
    logits,
    pls_basis,
    spanned,
    standardized,
)
from latentlm_evals.probing import Options, evaluate, run, table
from latentlm_evals.probing.folds import control, folds, unseen, unusable
from latentlm_evals.probing.images import image_factors
from latentlm_evals.probing.probe import chosen, probe, rate
from latentlm_evals.probing.properties import VERBS, Property, attributes, linguistic
from sklearn.cross_decomposition import PLSRegression
from tiny_models import build as tiny

from latentlm.config.schema import ConfigError
from latentlm.data import Facts, word_tokenizer
from latentlm.data.images import Scenes


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Fewer numbers of directions, and small networks."""
    monkeypatch.setattr("latentlm_evals.probing.probe.SIZES", (1, 4))
    monkeypatch.setattr("latentlm_evals.probing.probe.fit_mlp", partial(fit_mlp, hidden=16, steps=60))


@pytest.fixture
def hasty(monkeypatch):
    """Linear probes of few steps: for what does not depend on how good they are."""
    for home in ("probing.probe", "probes.layerwise"):
        monkeypatch.setattr(f"latentlm_evals.{home}.fit_linear", partial(fit_linear, steps=8))


def property_of(labels, entities=None, templates=None) -> Property:
    count = len(labels)
    entities = entities or [f"e{i % 40}" for i in range(count)]
    templates = templates or [f"t{i * 7 // 3 % 4}" for i in range(count)]
    return Property("planted", ["x"] * count, labels, entities, templates, 2)


def of_one_template(labels) -> Property:
    """Four folds, where `property_of` has eight."""
    return property_of(labels, templates=[""] * len(labels))


@pytest.fixture
def planted():
    """Depths: linear, exclusive or, absent; over 600 samples of width 6, in 40 entities."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 600, 6, generator=generator)
    y = torch.randint(0, 2, (600,), generator=generator)
    sign = 2.0 * y - 1
    x[0, :, 0] = sign * 2 + 0.3 * x[0, :, 0]
    x[1, :, 1] = sign * x[1, :, 0].sign() * (1 + x[1, :, 1].abs())
    return x, y


def test_linear_exclusive_or_and_absent_are_told_apart(planted):
    x, y = planted
    each = of_one_template(y.tolist())
    scores = probe(x, each, folds(each, 0), 0)
    linear, xor, absent = scores["acc"].tolist()
    assert linear > 0.99
    assert abs(xor - 0.5) < 0.1
    assert abs(absent - 0.5) < 0.1
    assert scores["mlp_gap"][1] > 0.3
    assert scores["mlp_gap"][[0, 2]].abs().max() < 0.1
    assert scores["selectivity"][0] > 0.3
    assert abs(float(scores["selectivity"][2])) < 0.1
    assert (scores["shuffled"] - 0.5).abs().max() < 0.1
    assert scores["compression"][0] > 5
    assert (scores["compression_control"] < 1.1).all()
    assert scores["compression"][2] < 1
    assert scores["pls_k"][0] == 1
    assert scores["pca_k"][2].isnan()


@pytest.mark.slow
def test_a_memory_of_entities_is_no_selectivity():
    """States that name the entity: random labels of entities are learned as well, so their codes are as short."""
    generator = torch.Generator().manual_seed(0)
    names = torch.arange(400) % 20
    noise = 0.01 * torch.randn(1, 400, 20, generator=generator)
    x = torch.nn.functional.one_hot(names).float()[None] + noise
    each = property_of((names % 2).tolist(), [f"e{name}" for name in names.tolist()], [""] * 400)
    scores = probe(x, each, folds(each, 0), 0)
    assert scores["acc"] < 0.7  # nothing is known of an entity that was not seen
    assert abs(float(scores["selectivity"])) < 0.05
    assert scores["compression_control"] > 1.5
    assert scores["compression"] == pytest.approx(scores["compression_control"], rel=0.4)
    lone = property_of(each.labels[:40], [str(place) for place in range(40)], [""] * 40)
    assert control(lone, random.Random(0)) is None
    assert "selectivity" not in probe(x[:, :40], lone, folds(lone, 0), 0)


def test_every_input_is_tested_once_by_strangers():
    each = property_of([0, 1] * 120)
    parts = folds(each, 0)
    assert sorted(place for _, test in parts for place in test) == list(range(240))
    for train, test in parts:
        for names in (each.entities, each.templates):
            assert not {names[i] for i in train} & {names[i] for i in test}
    first, again, other = (
        [[rows.tolist() for rows in part] for part in each_fold]
        for each_fold in (parts, folds(each, 0), folds(each, 1))
    )
    assert first == again != other
    single = dataclasses.replace(each, templates=[""] * 240)
    assert [len(train) + len(test) for train, test in folds(single, 0)] == [240] * 4


def test_the_chosen_depth_is_chosen_by_others():
    """Depth 0 is right about fold 0 alone, depth 1 about the rest: only a choice on the test inputs would score 1."""
    parts = [(np.array([2, 3]), np.array([0, 1])), (np.array([0, 1]), np.array([2, 3]))]
    hits = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    picked, places = chosen(hits, parts)
    assert picked.tolist() == [0, 0, 0, 0]
    assert places == [1, 0]


def test_the_interval_draws_whole_entities():
    each = property_of([0, 1] * 200, entities=[f"e{i // 40}" for i in range(400)], templates=[""] * 400)
    alike = torch.tensor([float(i // 40 % 2) for i in range(400)])
    apart = torch.tensor([float(i % 2) for i in range(400)])
    assert rate(alike, each).stderr > 0.1 > 0.01 > rate(apart, each).stderr
    assert rate(torch.ones(400), each).low == pytest.approx(0.025**0.1)


def test_logistic_regression_is_the_minimum_of_its_equation(planted):
    x, y = planted
    x = x[:1, :200].double()
    weights = fit_linear(x.float(), y[:200], 2, steps=300).double().requires_grad_()
    value = cross_entropy(logits(x, weights), y[:200]).mean() + 5e-3 * weights[:, :-1].square().sum()
    value.backward()
    assert weights.grad.abs().max() < 1e-4


def test_the_span_of_few_samples_is_all_a_probe_needs():
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(2, 30, 50, generator=generator), torch.randn(2, 20, 50, generator=generator)
    y = torch.randint(0, 3, (30,), generator=generator)
    whole = logits(test, fit_linear(train, y, 3, steps=300))
    for small in (spanned, axes):
        x, x_test = small(train, test)
        assert x.shape == (2, 30, 30)
        torch.testing.assert_close(logits(x_test, fit_linear(x, y, 3, steps=300)), whole, atol=5e-3, rtol=5e-3)
    spread = axes(train)[0].square().sum(1)
    torch.testing.assert_close(spread, torch.linalg.svdvals(train).square(), atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("classes", [2, 4])
def test_pls_spans_are_those_of_scikit_learn(classes):
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(80) % classes
    x = torch.randn(1, 80, 12, generator=generator) + torch.randn(classes, 12, generator=generator)[y]
    x = (x - x.mean(1, keepdim=True)).double()
    mine = pls_basis(x, y, classes, 5)[0]
    one_hot = torch.nn.functional.one_hot(y, classes).double().numpy()
    # with one column of labels SIMPLS and scikit-learn's NIPALS are the same, with several their first components are
    size = 5 if classes == 2 else 1
    other = PLSRegression(size, scale=False, tol=1e-14).fit(x[0].numpy(), one_hot[:, : 1 if classes == 2 else classes])
    theirs = torch.linalg.qr(torch.from_numpy(other.x_rotations_.copy())).Q
    torch.testing.assert_close(mine[:, :size] @ mine[:, :size].T, theirs @ theirs.T, atol=1e-6, rtol=1e-6)


def test_labels_without_a_pattern_cost_their_uniform_code():
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(0, 4, (800,), generator=generator)
    nothing = codelength(torch.zeros(1, 800, 3), y, 4)
    assert float(nothing) == pytest.approx(800 * math.log2(4), rel=0.03)
    told = codelength(torch.nn.functional.one_hot(y, 4).float()[None] * 10, y, 4)
    assert float(told) < 0.2 * float(nothing)


@pytest.mark.parametrize("rank", [1, 4])
def test_as_few_directions_as_were_planted(rank):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 400, 20, generator=generator)
    # an orthonormal frame keeps the planted directions the largest after each dimension was standardised
    frame = torch.linalg.qr(torch.randn(20, 20, generator=generator)).Q
    scale = torch.tensor([3.0] * rank + [0.3] * (20 - rank))
    hidden = x * scale
    y = (hidden[0, :, :rank].sum(-1) > 0).long()
    each = of_one_template(y.tolist())
    assert float(probe(hidden @ frame, each, folds(each, 0), 0)["pca_k"]) == rank


def test_a_dead_dimension_stays_zero():
    x = torch.randn(1, 50, 3)
    x[..., 1] = 7.0
    assert torch.equal(standardized(x)[0][..., 1], torch.zeros(1, 50))


def test_properties_are_balanced_and_the_same_every_time():
    for one, two in zip(linguistic(200, 0), linguistic(200, 0), strict=True):
        assert dataclasses.asdict(one) == dataclasses.asdict(two)
        assert len(set(one.inputs)) == 200
        assert abs(sum(one.labels) - 100) <= 10


def test_attributes_are_those_of_the_facts():
    facts = Facts(num_a_to_b=20, num_b_to_a=0, num_both=0, name_parts=8)
    noun, first = attributes(facts, 100)
    for fact, text, label in zip(facts.facts(), noun.inputs, noun.labels, strict=True):
        assert text == fact.a
        assert sorted({f.b.split()[-1] for f in facts.facts()})[label] == fact.b.split()[-1]
    assert first.inputs == [fact.b for fact in facts.facts()]


def test_what_says_nothing_is_named():
    for each, says in (
        (property_of([1] * 400), "of one class"),
        (property_of([0, 1] * 6), "too few; raise limit"),
        (property_of([0, 1] * 50, entities=["a", "b"] * 50), "2 entities are too few"),
        (property_of([0] * 396 + [1] * 4, entities=[f"e{i // 100}" for i in range(400)]), "a fold are of one class"),
    ):
        assert says in unusable(each, folds(each, 0))
    lonely = dataclasses.replace(
        property_of([0, 1] * 198 + [2] * 4, entities=[f"e{i // 4}" for i in range(400)]), classes=3
    )
    assert "4 of 400 inputs are of a class without" in unseen(lonely, folds(lonely, 0))
    assert unseen(property_of([0, 1] * 200), folds(property_of([0, 1] * 200), 0)) is None


def test_scenes_are_asked_for_their_factors_on_unseen_animals():
    found = {each.name: each for each in image_factors(Scenes(), 200, 0)}
    assert {"body", "fur", "identity", "x, in quarters", "noise, in quarters"} <= found.keys()
    assert np.bincount(found["x, in quarters"].labels).tolist() == [50] * 4
    body = found["body"]
    assert body.inputs[0].shape == (32, 32, 3)
    for train, test in folds(body, 0):
        assert not {body.entities[i] for i in train} & {body.entities[i] for i in test}
    assert len(set(found["identity"].entities)) == 200


def test_a_network_is_probed_beside_its_nulls(hasty):
    properties = [each for each in linguistic(160, 0) if each.name in ("tense", "coordination inversion")]
    tokenizer = word_tokenizer(properties[0].inputs)
    encoder = TextEncoder("tiny", tiny("llama", vocab_size=len(tokenizer)).float(), tokenizer)
    flat = dataclasses.replace(properties[0], name="flat", labels=[1] * 160)
    scored = evaluate(encoder, [*properties, flat], Options(limit=160, depths=("block 2", 0)))
    result = scored.to_lm_eval()
    assert {task.split("/")[1] for task in result["results"]} == {"tense", "coordination inversion"}
    for row in result["results"].values():
        assert 0 <= row["acc_low,none"] <= row["acc,none"] <= row["acc_high,none"] <= 1
        assert row["chance,none"] == 0.5
    measured = {"acc", "random_init", "shuffled", "selectivity", "compression", "compression_control", "pca_k", "pls_k"}
    assert {f"{name},none" for name in measured} < result["results"]["probe/tense/2"].keys()
    assert result["results"]["probe/tense/chosen"]["depth,none"] in (0, 2)
    matrix = result["matrices"]["probe"]
    assert (matrix["rows"], matrix["columns"]) == ([0, 2], ["tense", "coordination inversion"])
    assert any("flat: left out" in told for told in result["warnings"])
    (unknown,) = (told for told in result["warnings"] if "unknown words" in told)
    assert unknown.startswith("coordination inversion: ")
    assert "flat" in table({"one": scored})[0].caption


class Letters:
    """An encoder of one's own: depth 0 tells nothing, depth 1 whether a text is in the past tense."""

    kind, name, num_layers, dim = "text", "letters", 1, 3

    def states(self, inputs, at, /, *, depths, batch_size):
        assert at == "last"
        noise = torch.randn(len(inputs), 2, 3, generator=torch.Generator().manual_seed(0))
        past = {verb for _, verb in VERBS}
        noise[:, 1, 0] += torch.tensor([5.0 * bool(past & set(text.split())) for text in inputs])
        return noise[:, list(depths)]

    def random_init(self, seed, /):
        raise AssertionError("fresh weights were not asked for")


def test_any_function_to_states_can_be_probed(hasty):
    properties = [each for each in linguistic(200, 0) if each.name == "tense"]
    result = evaluate(Letters(), properties, Options(limit=200, null=False)).to_lm_eval()["results"]
    assert result["probe/tense/1"]["acc,none"] > 0.95 > 0.65 > result["probe/tense/0"]["acc,none"]
    assert "random_init,none" not in result["probe/tense/1"]


@pytest.mark.parametrize(
    ("data", "says"),
    [("grpo", ".*neither facts nor images"), ("mae", "images, but .*model reads texts")],
)
def test_data_that_cannot_be_probed_is_named(data, says, tmp_path):
    tokenizer = word_tokenizer(["a b"])
    tiny("llama", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match=f"^data: {data} has {says}"):
        run(str(tmp_path / "model"), Options(data=data, device="cpu"))


def test_people_of_one_kind_are_named_not_dropped():
    noun, _ = attributes(Facts(num_a_to_b=1, num_b_to_a=0, num_both=0), 100)
    assert "of one class" in unusable(noun, folds(noun, 0))
