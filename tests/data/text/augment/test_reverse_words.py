"""Reversed words: the same words from the other end, spans whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentlm.config.schema import ConfigError
from latentlm.data import Document, Facts, conversation
from latentlm.data.text.augment.reverse_words import reverse_words
from latentlm.experiment.build_model import read_config
from latentlm.experiment.datasets import prepare
from latentlm.experiment.recipe import load_recipe

WORDS = st.lists(st.sampled_from(["known", "for", "being", "the", "one,"]), max_size=4)
SPAN = st.lists(st.sampled_from(["Daphne", "Barrington", "brave", "guard"]), min_size=1, max_size=3).map(" ".join)


def test_words_are_reversed_and_spans_are_not():
    text = "Daphne Barrington, known far and wide for being a brave guard."
    found = reverse_words(Document(text, [(0, 17), (48, 61)], target_span_ids=[0]))
    assert found.text == ". a brave guard being for wide and far known , Daphne Barrington"
    assert [found.text[start:end] for start, end in found.spans] == ["Daphne Barrington", "a brave guard"]
    assert found.target_span_ids == [0]
    assert reverse_words(Document("b c")) == Document("c b")


@given(WORDS, SPAN, WORDS, SPAN, WORDS, st.booleans())
def test_twice_is_once(before, one, between, two, after, swapped):
    parts = [*before, one, *between, two, *after]
    text = " ".join(parts)
    start = len(" ".join([*before, ""]))
    later = len(" ".join([*before, one, *between, ""]))
    spans = [(start, start + len(one)), (later, later + len(two))]
    document = Document(text, spans[::-1] if swapped else spans)
    turned = reverse_words(document)
    assert turned.text == " ".join(parts[::-1])
    assert [turned.text[a:b] for a, b in turned.spans] == [text[a:b] for a, b in document.spans]
    assert reverse_words(turned) == document


def test_every_document_is_read_both_ways():
    once, both = (_read(f"data.augment={each}") for each in ("[]", "[reverse_words]"))
    assert both[: len(once)] == once
    assert [sorted(ids) for ids in both[len(once) :]] == [sorted(ids) for ids in once]
    assert both[len(once) :] != once


def _read(more: str) -> list[list[int]]:
    recipe = load_recipe(
        "next_token", ["data.source.num_a_to_b=5", "data.source.num_b_to_a=5", "data.source.num_both=5", more]
    )
    return list(prepare(recipe, read_config(recipe)).dataset["input_ids"])


@pytest.mark.parametrize(
    ("document", "match"),
    [
        (conversation([{"role": "user", "content": "hello"}]), "conversation"),
        (Document("a long walk", [(0, 6), (2, 11)]), "overlap"),
    ],
)
def test_what_cannot_be_turned_is_named(document, match):
    with pytest.raises(ValueError, match=f"reverse_words: .*{match}"):
        reverse_words(document)


def test_conversations_are_refused_before_a_model_is_loaded(tmp_path):
    (tmp_path / "chat.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    more = [f"data={{kind: text, source: {tmp_path}/chat.jsonl}}", "data.augment=[reverse_words]", "model=tiny_llama"]
    recipe = load_recipe("next_token", more)
    config = read_config(recipe)
    with pytest.raises(ConfigError, match=r"^data\.augment: reverse_words: "):
        prepare(recipe, config)


def test_facts_end_in_the_other_span_after_turning():
    """A person told of from the name alone is now read with the name after the description, too."""
    data = Facts(num_a_to_b=5, num_b_to_a=0, num_both=0)
    for document in data.documents():
        first, second = sorted(range(2), key=lambda k: document.spans[k])
        turned = reverse_words(document).spans
        assert turned[second][1] <= turned[first][0]
