"""Answer noise: which tokens are replaced, how many, and that nothing else changes."""

import pytest
import torch

from latentlm.config.schema import ConfigError
from latentlm.data import Annotated, Collator, Document, Facts, augment_examples, encode_dataset, word_tokenizer
from latentlm.data.text.augment import AnswerNoise
from latentlm.experiment.recipe import load_recipe

FACTS = Facts(num_a_to_b=20, num_b_to_a=20, num_both=60, templates_per_fact=6)
DOCUMENTS = FACTS.documents()
TOKENIZER = word_tokenizer([document.text for document in DOCUMENTS])
CLEAN = encode_dataset(DOCUMENTS, TOKENIZER, 64, FACTS.sets, token_spans=True)


def _noise(rate: float, seed: int = 0, dataset=CLEAN):
    return augment_examples(dataset, [AnswerNoise(rate)], seed)


def _pool(dataset=CLEAN) -> list[int]:
    answers = zip(dataset["input_ids"], dataset["answer"], strict=True)
    return [token for ids, answer in answers for token in ids[slice(*answer)]]


def _changed(data) -> list[list[int]]:
    rows = data.__getitems__(range(len(data)))
    return [
        [k for k, (a, b) in enumerate(zip(row["input_ids"], clean["input_ids"], strict=True)) if a != b]
        for row, clean in zip(rows, CLEAN, strict=True)
    ]


def _answer(row: dict) -> list[int]:
    return row["input_ids"][slice(*row["spans"][-1])]


def test_the_spans_are_marked_in_their_order():
    for document, row in zip(DOCUMENTS, CLEAN, strict=True):
        read = [TOKENIZER.decode(row["input_ids"][slice(*place)]) for place in row["spans"]]
        assert read == [document.text[start:end] for start, end in sorted(document.spans)]


def test_a_span_that_max_length_cuts_is_no_answer_and_a_text_without_spans_has_none():
    longest = max(len(row["input_ids"]) for row in CLEAN)
    document = next(d for d, row in zip(DOCUMENTS, CLEAN, strict=True) if len(row["input_ids"]) == longest)
    options = {"long_documents": "truncate", "token_spans": True}
    cut, plain = encode_dataset([document, Document(document.text)], TOKENIZER, longest - 3, **options)
    assert (len(cut["spans"]), cut["answer"]) == (1, [0, 0])
    assert (plain["spans"], plain["answer"]) == ([], [0, 0])


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_share_of_the_last_span_is_replaced_and_nothing_else_changes(share):
    data, pool = _noise(share, seed=3), _pool()
    changed = _changed(data)
    for places, row in zip(changed, CLEAN, strict=True):
        assert set(places) <= set(range(*row["spans"][-1]))
    room = sum(end - start for *_, (start, end) in CLEAN["spans"])
    same = sum(pool.count(token) ** 2 for token in set(pool)) / len(pool) ** 2  # drawn: itself
    expected = share * (1 - same)
    assert sum(map(len, changed)) / room == pytest.approx(expected, abs=4 * (expected / room) ** 0.5)
    for row, clean in zip(data.__getitems__(range(len(data))), CLEAN, strict=True):
        assert row["labels"] == clean["labels"]
        assert row["span_pairs"] == clean["span_pairs"]


def test_every_token_of_the_spans_is_drawn_as_often_as_it_occurs():
    data, pool = _noise(0.9), _pool()
    drawn: list[int] = []
    for epoch in range(6):
        data.set_epoch(epoch)
        for row, clean in zip(data.__getitems__(range(len(data))), CLEAN, strict=True):
            places = range(*clean["spans"][-1])
            drawn += [row["input_ids"][k] for k in places if row["input_ids"][k] != clean["input_ids"][k]]
    assert set(drawn) <= set(pool)
    frequent = max(set(pool), key=pool.count)
    wanted = pool.count(frequent) / len(pool)
    assert drawn.count(frequent) / len(drawn) == pytest.approx(wanted, rel=0.25)


def test_a_document_is_the_same_in_every_batch_and_differs_by_epoch_and_seed():
    data = _noise(0.5)
    assert data.__getitems__([5, 2, 9])[1] == data[2]
    first = _changed(data)
    assert _changed(data) == first
    data.set_epoch(1)
    assert _changed(data) != first
    data.set_epoch(0)
    assert _changed(data) == first
    assert _changed(_noise(0.5, seed=1)) != first


def test_batches_differ_in_the_ids_alone():
    collator = Collator(TOKENIZER.pad_token_id, FACTS.sets)
    where = list(range(8))
    clean = collator(CLEAN.__getitems__(where))
    dropped = collator(_noise(0.5).__getitems__(where))
    assert not torch.equal(clean["input_ids"], dropped["input_ids"])
    assert torch.equal(clean["labels"], dropped["labels"])
    assert all(torch.equal(clean["latent"][name], dropped["latent"][name]) for name in clean["latent"])
    isolated = clean["latent"]["segments"] > 0
    assert torch.equal(clean["input_ids"][isolated], dropped["input_ids"][isolated])


def test_only_an_answer_that_can_be_a_target_is_replaced():
    documents = Annotated(target_span_ids=(0,)).mark(DOCUMENTS)  # a fact's first span is its name
    dataset = encode_dataset(documents, TOKENIZER, 64, FACTS.sets, token_spans=True)
    data = _noise(0.9, dataset=dataset)
    changed = _changed(data)
    name_last = [document.spans[0][0] > document.spans[1][0] for document in DOCUMENTS]
    assert 0 < sum(name_last) < len(DOCUMENTS)
    assert not any(places for places, last in zip(changed, name_last, strict=True) if not last)
    assert sum(map(bool, changed)) > 0.9 * sum(name_last)
    names = {token for row, last in zip(CLEAN, name_last, strict=True) if last for token in _answer(row)}
    assert set(_pool(dataset)) == names


def test_data_without_spans_are_refused():
    with pytest.raises(ValueError, match="answer_noise: no document ends in a span"):
        _noise(0.5, dataset=encode_dataset([Document("a b")], TOKENIZER, 8, token_spans=True))


@pytest.mark.parametrize(
    ("recipe", "override", "line"),
    [
        (
            "reversal",
            "data.augment=[{kind: answer_noise, rate: 1}]",
            "answer_noise: rate 1.0; set it to 0 or more and below 1",
        ),
        ("grpo", "data.augment=[answer_noise]", "data.augment: grpo reads what it has written itself"),
        ("reversal", "data.augment=[answer_noise, answer_noise]", "augment: answer_noise is given twice"),
    ],
)
def test_a_recipe_that_cannot_have_it_says_so(recipe, override, line):
    with pytest.raises(ConfigError) as error:
        load_recipe(recipe, [override])
    assert line in str(error.value)
