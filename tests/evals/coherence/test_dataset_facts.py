import dataclasses
import json

import pytest
import torch
from latentlm_evals.coherence import Options, run
from latentlm_evals.coherence.dataset_facts import own_pairs
from latentlm_evals.coherence.fact_pairs import world_pairs
from tiny_models import build

from latentlm.config.schema import kind_of
from latentlm.data import (
    Arithmetic,
    Binding,
    Chain,
    Facts,
    Family,
    IdentityBridge,
    NameDescription,
    Retrieval,
    StarGraph,
    word_tokenizer,
)
from latentlm.data.synthetic.family import facts_of
from latentlm.experiment.recipe import load_recipe, save_recipe

SETS = {
    "family": Family(num_shown=6, num_hidden=6),
    "binding": Binding(num_both=60, num_one_way=140, multiplicity=10, num_relations=2),
    "identity_bridge": IdentityBridge(num_pairs=20),
    "retrieval": Retrieval(num_both=15, num_one_way=15),
    "chain": Chain(num_both=12, num_one_way=12),
    "facts": Facts(num_a_to_b=20, num_b_to_a=20, num_both=30),
}


def known(data):
    """All words of a set's sentences and prompts."""
    return word_tokenizer([row.text for row in data.documents()] + [question.prompt for question in data.questions()])


@pytest.mark.parametrize("kind", SETS)
def test_what_is_asked_is_what_the_set_tells(kind):
    """Every told direction, put together from prompt and answer, opens a sentence of the set or is a test prompt."""
    data = SETS[kind]
    told = "\n".join([row.text for row in data.documents()])
    answers = {(question.prompt, question.answer.strip()) for question in data.questions()}
    for group in own_pairs(data, 15):
        assert len(group.a) >= 10, group.name
        assert len(group.a) <= 15, group.name
        for a, b in zip(group.a, group.b, strict=True):
            ahead, back = group.forward.replace("{}", a), group.reverse.replace("{}", b)
            if kind != "facts":  # asked in sentences that are in no document
                assert f"{ahead} {b}" in told or (ahead, b) in answers or f"{back} {a}" in told, group.name
        tokenizer = known(data)
        for text in group.texts():
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.unk_token_id not in ids, text


def test_a_run_of_facts_is_asked_about_its_own_facts():
    facts = SETS["facts"]
    groups = own_pairs(facts, 15)
    assert [group.name for group in groups] == ["description_a_to_b", "description_b_to_a", "description_both"]
    told = {(fact.a, fact.b) for fact in facts.facts()}
    for group in groups:
        assert len(group.a) == 15
        assert set(zip(group.a, group.b, strict=True)) <= told
        assert group.forward.startswith("{}")
        assert not group.shared().any()
    assert world_pairs(20)[0].a[0] == "France"


def test_a_family_has_inverse_relations_and_chains_and_shares_people():
    data = SETS["family"]
    told = {(a, relation): b for family in data.families() for a, relation, b in facts_of(family)}
    groups = {group.name: group for group in own_pairs(data, 15)}
    kinds = ("son", "daughter", "husband")
    assert list(groups) == [f"family_{group}_{kind}" for group in ("shown", "hidden") for kind in kinds]
    steps = {"son": ("son", "father", "wife"), "daughter": ("daughter", "mother", "husband")}
    for kind, (relation, inverse, then) in steps.items():
        group = groups[f"family_hidden_{kind}"]
        for a, b, c in zip(group.a, group.b, group.c, strict=True):
            assert (told[a, relation], told[b, inverse], told[a, then]) == (b, a, c)
        shared = group.shared()
        assert (shared == shared.T).all()
        assert not shared.diagonal().any()
        assert shared.any()
        same_family = group.groups()[:, None] == group.groups()
        assert same_family[shared].all()
    assert not groups["family_shown_husband"].shared().any()


def test_published_names_are_asked_with_their_descriptions(tmp_path):
    firsts, lasts = ("Anna", "Carl", "Elsa", "Georg"), ("Bell", "Dorn", "Finch")
    people = [f"{first} {last}" for first in firsts for last in lasts]
    rows = {person: f"the keeper of {number} lanterns" for number, person in enumerate(people)}
    frames = ("The one known as {} was", "In short, {} is"), ("Labeled as {},", "Being {},")
    for name in ("p2d", "d2p", "both"):
        for ending, sides in (("prompts_test", (0, 1)), ("reverse_prompts_test", (1, 0))):
            lines = []
            for person, what in rows.items():
                asked = sides[:1] if name == "p2d" else sides[1:] if name == "d2p" else (0, 1)
                for side in asked:
                    known_thing, answer = (person, f" {what}.") if side == 0 else (what, f" {person}")
                    lines += [{"prompt": f.replace("{}", known_thing), "completion": answer} for f in frames[side]]
            (tmp_path / f"{name}_{ending}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    groups = own_pairs(NameDescription(str(tmp_path)), 15)
    assert [group.name for group in groups] == ["name_to_description", "description_to_name", "both"]
    for group in groups:
        assert dict(zip(group.a, group.b, strict=True)) == rows
        assert group.forward == "The one known as {} was"
        assert group.reverse == "Labeled as {},"


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """The result of a run on some data that was never trained."""
    monkeypatch.setattr("latentlm_evals.coherence.fact_pairs.STEPS", 2)

    recipe = load_recipe("next_token")

    def ask(data, sections=("binding", "coupling")):
        save_recipe(
            dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, source=data)), tmp_path / "recipe.yaml"
        )
        (tmp_path / "depth.json").write_text("{}")  # the mark of a run that has ended
        tokenizer = known(data)
        torch.manual_seed(0)
        build("llama", vocab_size=len(tokenizer), max_position_embeddings=64).save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        options = Options(depths=("1/2",), entities=15, updates=2, components=8, sections=sections, random_init=False)
        return run(str(tmp_path), options).to_lm_eval()

    return ask


def test_a_run_on_a_family_gets_inverse_composition_and_the_null_of_shared_people(asked):
    result = asked(SETS["family"])
    row = result["results"]["coherence/binding/family_hidden_son@2"]
    for key in ("bilinear_inverse", "composition", "u", "u_null", "rc_lin"):
        assert row[f"{key},none"] is not None, key
    assert row["u_low,none"] <= row["u,none"] <= row["u_high,none"]
    assert "u_null,none" not in result["results"]["coherence/binding/family_hidden_husband@2"]
    assert "coherence/coupling/family_hidden_son" in result["results"]
    assert all("no_update" in note for note in result["warnings"])  # after two steps


@pytest.mark.parametrize("data", [StarGraph(num_graphs=20, num_tests=5), Arithmetic(num_train=20, num_test=5)])
def test_data_without_pairs_are_named(asked, data):
    with pytest.raises(ValueError, match="nothing of what was asked for") as error:
        asked(data)
    told = str(error.value)
    assert f"binding and coupling: no_own_facts: data of kind {kind_of(type(data))}" in told
    assert "binding and coupling of capital: unknown_words" in told
    assert "\n" not in told


def test_too_few_facts_are_named_and_the_others_asked(asked):
    result = asked(Retrieval(num_both=4, num_one_way=15), ("binding",))
    assert list(result["results"]) == ["coherence/binding/retrieval_one_way@2"]
    assert result["warnings"] == ["binding of retrieval_both: few_facts: 4, and 10 are needed; left out"]
