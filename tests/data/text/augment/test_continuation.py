"""Continuation: isolated spans go on with words that follow such spans."""

import pytest

from latentlm.data import SETS, Document, augment_documents, encode_dataset, word_tokenizer
from latentlm.data.text.augment import Continuation

DOCUMENTS = [
    Document("Ada Reed is the cook .", [(0, 8), (12, 20)]),
    Document("Ada Reed has long been known to all of us here as the cook .", [(0, 8), (50, 58)]),
    Document("the cook was named Ada Reed .", [(19, 27), (0, 8)]),
    Document("the cook , Ada Reed .", [(11, 19), (0, 8)]),
] * 100


def test_the_words_follow_a_span_of_that_number_in_some_document():
    words = word_tokenizer([document.text for document in DOCUMENTS])

    def rows(*augment):
        return list(encode_dataset(augment_documents(DOCUMENTS, augment), words, 64, SETS))

    extended = rows(Continuation(0.6))
    assert extended == rows(Continuation(0.6)) != rows(Continuation(0.6, seed=1))
    read = [words.decode(p["isolated_source"]) for row in extended for p in row["span_pairs"] if p["isolated_source"]]
    names = {"Ada Reed is", "Ada Reed has long been known to all of us"}  # eight words, and no more
    descriptions = {"the cook was named", "the cook,"}
    assert set(read) == {"Ada Reed", "the cook"} | names | descriptions
    share = sum(text not in ("Ada Reed", "the cook") for text in read) / len(read)
    assert share == pytest.approx(0.6, abs=0.1)
    for row, plain in zip(extended, rows(), strict=True):
        assert row["input_ids"] == plain["input_ids"]
        for pair, other in zip(row["span_pairs"], plain["span_pairs"], strict=True):
            assert pair["target_ids"] == other["target_ids"]
            assert bool(pair["isolated_source"]) == bool(other["isolated_source"])
            assert pair["source_last"] == (len(pair["isolated_source"]) or other["source_last"] + 1) - 1


def test_a_number_that_never_comes_first_takes_any_words():
    document = Document("Ada Reed is the cook .", [(0, 8), (12, 20)])  # the description is always last
    for changed in augment_documents([document] * 50, [Continuation(1.0)]):
        assert [edit.suffix for edit in changed.edits] == [" is", " is"]
    lonely = [Document("Ada Reed", [(0, 8)]), Document("nobody")]
    assert augment_documents(lonely, [Continuation(1.0)]) == lonely
