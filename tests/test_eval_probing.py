"""Probes on states of known truth: what is there is found, what is not is not, and the nulls say so."""

import dataclasses
import math

import pytest
import torch
from latentlm_evals.encoder import TextEncoder
from latentlm_evals.probing import Options, evaluate, table
from latentlm_evals.probing.evaluate import probe, split, unusable
from latentlm_evals.probing.fit import codelength, cross_entropy, directions, fit_linear, logits, standardized
from latentlm_evals.probing.properties import Property, attributes, linguistic
from tiny_models import build as tiny

from latentlm.data import Facts, word_tokenizer


def property_of(labels, entities=None, templates=None) -> Property:
    count = len(labels)
    entities = entities or [f"e{i % 40}" for i in range(count)]
    return Property("planted", ["x"] * count, labels, entities, templates or [f"t{i % 4}" for i in range(count)], 2)


@pytest.fixture
def planted():
    """Depths: linear, exclusive or, absent; over 1600 samples of width 12."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 1600, 12, generator=generator)
    y = torch.randint(0, 2, (1600,), generator=generator)
    sign = 2.0 * y - 1
    x[0, :, 0] = sign * 2 + 0.3 * x[0, :, 0]
    x[1, :, 1] = sign * x[1, :, 0].sign() * (1 + x[1, :, 1].abs())
    return x, y


def test_linear_exclusive_or_and_absent_are_told_apart(planted):
    x, y = planted
    each = property_of(y.tolist(), entities=[f"e{i // 40}" for i in range(1600)])
    train, test = split(each, 0)
    scores = probe(x, each, train, test, 0)
    linear, xor, absent = scores["acc"].tolist()
    assert linear > 0.99
    assert abs(xor - 0.5) < 0.15
    assert abs(absent - 0.5) < 0.15
    assert scores["mlp_gap"][1] > 0.3
    assert scores["mlp_gap"][[0, 2]].abs().max() < 0.15
    assert scores["selectivity"][0] > 0.3
    assert abs(float(scores["selectivity"][2])) < 0.15
    assert abs(float(scores["shuffled"][0]) - 0.5) < 0.15
    assert scores["compression"][0] > 5
    assert scores["compression"][2] < 1
    assert scores["directions"][0] <= 12
    assert scores["directions"][2].isnan()


def test_logistic_regression_is_the_minimum_of_its_equation(planted):
    x, y = planted
    x = x[:1, :200].double()
    weights = fit_linear(x.float(), y[:200], 2, steps=300).double().requires_grad_()
    value = cross_entropy(logits(x, weights), y[:200]).mean() + 5e-3 * weights[:, :-1].square().sum()
    value.backward()
    assert weights.grad.abs().max() < 1e-4


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
    x = torch.randn(1, 3000, 20, generator=generator) * 0.05
    x[0, :, :rank] += torch.randn(3000, rank, generator=generator)
    y = (x[0, :, :rank].sum(-1) > 0).long()
    x_train, x_test = x[:, :2000], x[:, 2000:]
    assert float(directions(x_train, y[:2000], x_test, y[2000:], 2)) == rank


def test_a_dead_dimension_stays_zero():
    x = torch.randn(1, 50, 3)
    x[..., 1] = 7.0
    assert torch.equal(standardized(x)[0][..., 1], torch.zeros(1, 50))


def test_properties_are_balanced_and_the_same_every_time():
    for one, two in zip(linguistic(200, 0), linguistic(200, 0), strict=True):
        assert dataclasses.asdict(one) == dataclasses.asdict(two)
        assert len(set(one.texts)) == 200
        assert abs(sum(one.labels) - 100) <= 10
        train, test = split(one, 0)
        assert not {one.entities[i] for i in train} & {one.entities[i] for i in test}
        assert not {one.templates[i] for i in train} & {one.templates[i] for i in test}


def test_attributes_are_those_of_the_facts():
    facts = Facts(num_a_to_b=20, num_b_to_a=0, num_both=0, name_parts=8)
    noun, first = attributes(facts, 100)
    for fact, text, label in zip(facts.facts(), noun.texts, noun.labels, strict=True):
        assert text == fact.a
        assert sorted({f.b.split()[-1] for f in facts.facts()})[label] == fact.b.split()[-1]
    assert first.texts == [fact.b for fact in facts.facts()]


def test_what_says_nothing_is_named():
    flat = property_of([1] * 400)
    train, test = split(flat, 0)
    assert "of one class" in unusable(flat, torch.tensor(flat.labels), train, test)
    small = property_of([0, 1] * 6)
    assert "too few" in unusable(small, torch.tensor(small.labels), *split(small, 0))


def test_a_network_is_probed_beside_its_nulls():
    properties = [each for each in linguistic(240, 0) if each.name in ("tense", "coordination inversion")]
    tokenizer = word_tokenizer(properties[0].texts)
    encoder = TextEncoder("tiny", tiny("llama", vocab_size=len(tokenizer)).float(), tokenizer)
    flat = dataclasses.replace(properties[0], name="flat", labels=[1] * 240)
    result = evaluate(encoder, [*properties, flat], Options(limit=240, depths=(0, 2)))
    assert {task.split("/")[1] for task in result["results"]} == {"tense", "coordination inversion"}
    for row in result["results"].values():
        assert {"acc,none", "random_init,none", "shuffled,none", "chance,none", "compression,none"} < row.keys()
        assert 0 <= row["acc,none"] <= 1
    matrix = result["matrices"]["probe"]
    assert (matrix["rows"], matrix["columns"]) == ([0, 2], ["tense", "coordination inversion"])
    assert any("flat: left out" in told for told in result["warnings"])
    (unknown,) = (told for told in result["warnings"] if "unknown words" in told)
    assert unknown.startswith("coordination inversion: ")
    assert "flat" in table({"one": result}).caption
