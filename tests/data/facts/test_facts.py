"""Invented facts: deterministic, told only in the promised direction, and never tested on a trained sentence."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from paths import ROOT

from latentlm.data.questions import find_spans
from latentlm.data.synthetic.facts import Facts
from latentlm.data.synthetic.templates import MODIFIERS, NOUNS, RELATIONS

ALL = ("description", "mentor", "admires")
SMALL = Facts(num_a_to_b=12, num_b_to_a=9, num_both=7, relations=ALL, name_parts=12, questions_per_split=10)

DIGEST = """
import hashlib, sys, types
for name in ("latentlm", "latentlm.data"):  # facts need no torch: skip the package's own imports
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [name.replace(".", "/")]
from latentlm.data.synthetic.facts import Facts
part = Facts(num_a_to_b=12, num_b_to_a=9, num_both=7, relations=("description", "mentor", "admires"), name_parts=12)
print(hashlib.sha256(repr((part.documents(), part.questions())).encode()).hexdigest())
"""


def _first(document, fact):
    return "a" if document.text.index(fact.a) < document.text.index(fact.b) else "b"


def test_documents_and_items_are_equal_across_processes():
    root = ROOT
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64


def test_another_seed_gives_other_facts():
    assert set(Facts(seed=1).facts()).isdisjoint(Facts().facts())


@pytest.mark.parametrize("name", ALL)
def test_train_and_test_sentences_are_disjoint_and_end_with_what_is_asked(name):
    for direction, asked in ((RELATIONS[name].a_to_b, "b"), (RELATIONS[name].b_to_a, "a")):
        if direction is None:
            continue
        assert len(set(direction.train)) >= 12
        assert len(set(direction.test)) >= 4
        assert len(set(direction.composed)) == len(direction.composed) >= 80
        for trained in (direction.train, direction.composed):
            assert not set(trained) & set(direction.test)
            words = {word for sentence in trained for word in sentence.replace(",", "").split()}
            assert words >= {word for sentence in direction.test for word in sentence.split()}
            for sentence in trained + direction.test:
                assert sentence.endswith("{" + asked + "}.")
                assert sentence.count("{") == 2
            # where one prompt begins another, its answer and the next word of that sentence are both right
            prompts = sorted(sentence[: sentence.rindex("{")] for sentence in trained + direction.test)
            assert not [one for one, other in pairwise(prompts) if other.startswith(one)]


def test_composed_sentences_change_the_wording_and_nothing_else():
    part = replace(SMALL, templates="compositional")
    assert part.facts() == SMALL.facts()
    assert part.questions() == SMALL.questions()
    forms = set()
    for document in part.documents():
        (a, b), (c, d) = sorted(document.spans)
        forms.add((document.text[:a], document.text[b:c], document.text[d:]))
        assert document.spans == find_spans(document.text, [document.text[slice(*s)] for s in document.spans])
    told = [Counter(tuple(d.text[slice(*s)] for s in d.spans) for d in p.documents()) for p in (SMALL, part)]
    assert told[0] == told[1]
    assert len(forms) > 300


@pytest.mark.parametrize("templates", ["fixed", "compositional"])
def test_no_test_prompt_occurs_in_a_training_document(templates):
    text = "\n".join(document.text.lower() for document in replace(SMALL, templates=templates).documents())
    assert not [question.prompt for question in SMALL.questions() if question.prompt.lower() in text]


def test_test_sentences_are_not_trained_with_other_people_either():
    by_frame = {
        tuple(s.replace("{a}", "|").replace("{b}", "|").split("|")) for r in RELATIONS.values() for s in r.a_to_b.test
    }
    for document in SMALL.documents():
        (a, b), (c, d) = sorted(document.spans)
        frame = document.text[:a], document.text[b:c], document.text[d:]
        assert frame not in by_frame


def test_one_way_facts_are_never_told_the_other_way():
    documents = {}
    for document in SMALL.documents():
        documents.setdefault(tuple(document.text[slice(*span)] for span in document.spans), []).append(document)
    facts = SMALL.facts()
    assert len(documents) == len(facts)
    for fact in facts:
        told = documents[fact.a, fact.b]
        expected = {"a_to_b": {"a"}, "b_to_a": {"b"}, "both": {"a", "b"}}[fact.group]
        assert {_first(document, fact) for document in told} == expected
        assert len({document.text for document in told}) == 12 * len(expected)


def test_spans_are_exact_and_cover_all_mentions():
    names = {thing for fact in SMALL.facts() for thing in (fact.a, fact.b)}
    for document in SMALL.documents():
        things = [document.text[slice(*span)] for span in document.spans]
        assert set(things) <= names
        assert document.spans == find_spans(document.text, things)
        assert [document.text.count(thing) for thing in things] == [1, 1]


def test_entities_are_unique_and_made_of_whole_words():
    facts = SMALL.facts()
    names = [fact.a for fact in facts if fact.relation != "admires"]
    names += [fact.b for fact in facts if fact.relation == "mentor"]
    assert len(set(names)) == len(names)
    assert all(len(name.split()) == 2 and name.replace(" ", "").isalpha() for name in names)
    descriptions = [frozenset(fact.b.split()) for fact in facts if fact.relation == "description"]
    assert len(set(descriptions)) == len(descriptions)
    assert {len(words) for words in descriptions} == {3}
    assert len({*MODIFIERS, *NOUNS}) == len(MODIFIERS) + len(NOUNS)


def test_items_ask_what_they_say():
    facts = {f"{fact.a} | {fact.b}": fact for fact in SMALL.facts()}
    questions = SMALL.questions()
    assert {question.split for question in questions} == {"same", "reverse", "both", "shortcut", "non_reciprocal"}
    for question in questions:
        fact = facts[question.fact]
        asks_for_a = question.answer_type == RELATIONS[fact.relation].answer_type_a
        known, gold = (fact.b, fact.a) if asks_for_a else (fact.a, fact.b)
        assert question.subset == fact.subset
        assert question.prompt == question.prompt.strip()
        assert question.answer == question.answer.rstrip()
        if question.split == "shortcut":
            assert known in question.prompt
            assert question.answer == f" {known}"
        elif question.split == "non_reciprocal":
            assert fact.b in question.prompt
            assert question.answer == f" {fact.a}"
            assert any(other.a == fact.b and other.b != fact.a for other in facts.values())
        else:
            assert known in question.prompt
            assert question.answer == f" {gold}"
            assert gold not in question.prompt
            trained = {"a_to_b": "b", "b_to_a": "a"}.get(fact.group)
            split = "both" if trained is None else "reverse" if (trained == "b") == asks_for_a else "same"
            assert question.split == split


def test_pools_hold_one_kind_of_answer_and_facts_come_once_before_twice():
    groups = {}
    for question in SMALL.questions():
        groups.setdefault((question.pool, question.split), []).append(question)
    assert len({pool for pool, _ in groups}) == len(groups)
    for questions in groups.values():
        assert len({(question.subset, question.answer_type) for question in questions}) == 1
        assert len({question.prompt for question in questions}) == len(questions) == 10
        num_facts = sum(fact.subset == questions[0].subset for fact in SMALL.facts())
        assert len({question.fact for question in questions}) == min(10, num_facts)
    shortcut = [question.prompt for question in SMALL.questions() if question.split == "shortcut"]
    assert shortcut == [question.prompt for question in SMALL.questions() if question.split == "reverse"]


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"name_parts": 10}, "name_parts"),
        ({"name_parts": 10**6}, "name_parts"),
        ({"num_both": -1}, "num_both"),
        ({"num_a_to_b": 0, "num_b_to_a": 0, "num_both": 0}, "num_both"),
        ({"num_a_to_b": 2, "relations": ("admires",)}, "num_a_to_b"),
        ({"templates_per_fact": 13}, "templates_per_fact"),
        ({"templates_per_fact": 99, "templates": "compositional"}, "templates_per_fact"),
        ({"description_words": 10}, "description_words"),
        ({"description_length": 0}, "description_length"),
        ({"questions_per_split": 0}, "questions_per_split"),
        ({"relations": ()}, "relations"),
        ({"relations": ("description", "description")}, "relations"),
    ],
)
def test_wrong_fields_are_named(fields, key):
    with pytest.raises(ValueError, match=rf"^{key}: .*") as error:
        Facts(**fields)
    assert "\n" not in str(error.value)


def test_a_suggested_name_parts_is_enough():
    assert Facts(name_parts=35).name_parts ** 2 >= 1200
    with pytest.raises(ValueError, match=">= 35"):
        Facts(name_parts=34)


def test_find_spans_names_document_and_string():
    with pytest.raises(ValueError, match="'Vela Dorn' in the document 'no such person'"):
        find_spans("no such person", ["Vela Dorn"])
