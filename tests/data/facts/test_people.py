"""Invented people in conversations and in prose have the units that they are for."""

import pytest
from tiny_chats import tokenizer

from latentlm.data import People, encode_dataset, finders

GRAINS = {"chat": ("turn", "sentence"), "prose": ("paragraph", "sentence")}


@pytest.mark.parametrize("form", GRAINS)
def test_every_text_has_its_units(form):
    documents = People(num=30, form=form).documents()
    assert len(documents) == 30
    assert documents == People(num=30, form=form).documents()
    assert documents != People(num=30, form=form, seed=1).documents()
    rows = encode_dataset(documents, tokenizer(), 1024, grains=finders(GRAINS[form]))
    for document, row in zip(documents, rows, strict=True):
        units = {grain: len(found) for grain, found in row["units"].items()}
        if form == "chat":
            assert units["turn"] == len(document.messages) >= 4
            assert [message["role"] for message in document.messages[:2]] == ["user", "assistant"]
        else:
            assert units == {"paragraph": 3, "sentence": 9}


def test_it_asks_nothing_and_marks_no_spans():
    assert People().questions() == []
    assert People().sets == ()
    with pytest.raises(ValueError, match="num"):
        People(num=1)
