"""Word dropout: which tokens are read wrong, how many, and that nothing else changes."""

import pytest
import torch

from latentlm.config.schema import ConfigError
from latentlm.data import Collator, Facts, Given, WordDropout, encode_dataset, word_tokenizer
from latentlm.experiment.recipe import load_recipe

FACTS = Facts(num_a_to_b=20, num_b_to_a=20, num_both=60, templates_per_fact=6)
DOCUMENTS = FACTS.documents()
TOKENIZER = word_tokenizer([document["text"] for document in DOCUMENTS])
CLEAN = encode_dataset(DOCUMENTS, TOKENIZER, 64, FACTS.sets, places=True)


def _changed(data: WordDropout) -> list[list[int]]:
    rows = data.__getitems__(range(len(data)))
    return [
        [k for k, (a, b) in enumerate(zip(row["input_ids"], clean["input_ids"], strict=True)) if a != b]
        for row, clean in zip(rows, CLEAN, strict=True)
    ]


def _answer(row: dict) -> list[int]:
    return row["input_ids"][slice(*row["places"][-1])]


def test_the_spans_are_marked_in_their_order():
    for document, row in zip(DOCUMENTS, CLEAN, strict=True):
        read = [TOKENIZER.decode(row["input_ids"][slice(*place)]) for place in row["places"]]
        assert read == [document["text"][start:end] for start, end in sorted(document["spans"])]


def test_a_span_that_max_length_cuts_and_a_text_without_spans_have_none():
    longest = max(len(row["input_ids"]) for row in CLEAN)
    document = next(d for d, row in zip(DOCUMENTS, CLEAN, strict=True) if len(row["input_ids"]) == longest)
    short = encode_dataset([document, {"text": document["text"]}], TOKENIZER, longest - 3, places=True)
    assert [row["places"] for row in short] == [[], []]


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_share_of_the_last_span_is_read_wrong_and_nothing_else_changes(share):
    data = WordDropout(CLEAN, share, seed=3)
    changed = _changed(data)
    for places, row in zip(changed, CLEAN, strict=True):
        assert set(places) <= set(range(*row["places"][-1]))
    room = sum(end - start for *_, (start, end) in CLEAN["places"])
    same = sum(data.tokens.count(token) ** 2 for token in set(data.tokens)) / len(data.tokens) ** 2  # drawn: itself
    expected = share * (1 - same)
    assert sum(map(len, changed)) / room == pytest.approx(expected, abs=4 * (expected / room) ** 0.5)
    for row, clean in zip(data.__getitems__(range(len(data))), CLEAN, strict=True):
        assert row["labels"] == clean["labels"]
        assert row["pairs"] == clean["pairs"]


def test_every_token_of_the_spans_is_drawn_as_often_as_it_occurs():
    data = WordDropout(CLEAN, 0.9, seed=0)
    drawn: list[int] = []
    for epoch in range(6):
        data.set_epoch(epoch)
        for row, clean in zip(data.__getitems__(range(len(data))), CLEAN, strict=True):
            places = range(*clean["places"][-1])
            drawn += [row["input_ids"][k] for k in places if row["input_ids"][k] != clean["input_ids"][k]]
    assert set(drawn) <= set(data.tokens)
    frequent = max(set(data.tokens), key=data.tokens.count)
    wanted = data.tokens.count(frequent) / len(data.tokens)
    assert drawn.count(frequent) / len(drawn) == pytest.approx(wanted, rel=0.25)


def test_a_document_is_read_alike_in_every_batch_and_otherwise_in_every_epoch_and_seed():
    data = WordDropout(CLEAN, 0.5, seed=0)
    assert data.__getitems__([5, 2, 9])[1] == data[2]
    first = _changed(data)
    assert _changed(data) == first
    data.set_epoch(1)
    assert _changed(data) != first
    data.set_epoch(0)
    assert _changed(data) == first
    assert _changed(WordDropout(CLEAN, 0.5, seed=1)) != first


def test_batches_differ_in_the_ids_alone():
    collator = Collator(TOKENIZER.pad_token_id, FACTS.sets)
    where = list(range(8))
    clean = collator(CLEAN.__getitems__(where))
    dropped = collator(WordDropout(CLEAN, 0.5, seed=0).__getitems__(where))
    assert not torch.equal(clean["input_ids"], dropped["input_ids"])
    assert torch.equal(clean["labels"], dropped["labels"])
    assert all(torch.equal(clean["latent"][name], dropped["latent"][name]) for name in clean["latent"])
    alone = clean["latent"]["segments"] > 0
    assert torch.equal(clean["input_ids"][alone], dropped["input_ids"][alone])


def test_with_named_spans_only_an_answer_that_is_one_of_them_is_read_wrong():
    documents = Given(named=(0,)).mark(DOCUMENTS)  # a fact's first span is its name
    data = WordDropout(encode_dataset(documents, TOKENIZER, 64, FACTS.sets, places=True), 0.9, seed=0)
    changed = _changed(data)
    name_last = [document["spans"][0][0] > document["spans"][1][0] for document in DOCUMENTS]
    assert 0 < sum(name_last) < len(DOCUMENTS)
    assert not any(places for places, last in zip(changed, name_last, strict=True) if not last)
    assert sum(map(bool, changed)) > 0.9 * sum(name_last)
    names = {token for row, last in zip(CLEAN, name_last, strict=True) if last for token in _answer(row)}
    assert set(data.tokens) == names


def test_data_without_spans_are_refused():
    with pytest.raises(ValueError, match="word_dropout: no document ends in a span"):
        WordDropout(encode_dataset([{"text": "a b"}], TOKENIZER, 8, places=True), 0.5, seed=0)


@pytest.mark.parametrize(
    ("recipe", "override", "line"),
    [
        (
            "reversal",
            "data.augment=[{kind: answer_noise, rate: 1}]",
            "rate: 1.0; set it to 0 or more and below 1",
        ),
        (
            "grpo",
            "data.augment=[{kind: answer_noise, rate: 0.1}]",
            "data.augment: grpo reads what it has written itself",
        ),
        (
            "mae",
            "data.augment=[{kind: answer_noise, rate: 0.1}]",
            "unknown key 'augment' for Images",
        ),
    ],
)
def test_a_recipe_that_cannot_have_it_says_so(recipe, override, line):
    with pytest.raises(ConfigError) as error:
        load_recipe(recipe, [override])
    assert line in str(error.value)
