"""Distractor: a wrong target is where the right one is due."""

import pytest

from latentlm.data import SETS, Collator, Document, augment_documents, encode_dataset, word_tokenizer
from latentlm.data.text.augment import Continuation, Distractor


def _people(count):
    people = [(f"Ada Reed{k} Moss", f"the old cook{k}") for k in range(count)]
    texts = [(f"{name} is {craft} .", name, craft) for name, craft in people]
    texts += [(f"{craft} was {name} .", name, craft) for name, craft in people]
    return [
        Document(text, [(i := text.index(name), i + len(name)), (j := text.index(craft), j + len(craft))])
        for text, name, craft in texts
    ]


def _rows(documents, words, *augment):
    return list(encode_dataset(augment_documents(documents, augment), words, 64, SETS))


def test_a_wrong_target_follows_an_isolated_source_and_is_never_the_right_one():
    documents = _people(6) * 30
    words = word_tokenizer([document.text for document in documents])
    rows = _rows(documents, words, Continuation(1.0), Distractor(0.7))
    assert rows == _rows(documents, words, Continuation(1.0), Distractor(0.7))
    assert rows != _rows(documents, words, Continuation(1.0), Distractor(0.7, seed=1))
    seen = []
    for row in rows:
        for pair in row["span_pairs"]:
            if not pair["isolated_source"]:
                continue
            cut = pair["source_last"] + 1
            read, wrong = (
                words.decode(part).split() for part in (pair["isolated_source"][:cut], pair["isolated_source"][cut:])
            )
            assert read[-1] == ("was" if read[0] == "the" else "is")
            right = words.decode(pair["target_ids"]).split()
            assert len(wrong) in (0, len(right) - 1)  # the last token of the target is due after that
            if wrong:
                assert (wrong[0], len(wrong)) == (right[0], 2)  # of its kind: names after descriptions
            if len(right) == 3 and right[0] == "Ada" and wrong:
                assert wrong[1] != right[1]
            seen.append(bool(wrong))
    assert sum(seen) / len(seen) == pytest.approx(0.7 * 5 / 6, abs=0.1)  # the right one is drawn once in six


@pytest.mark.parametrize("row_length", [None, 64])
def test_target_positions_are_where_each_token_of_the_target_is_due(row_length):
    documents = _people(6)
    words = word_tokenizer([document.text for document in documents])
    rows = _rows(documents, words, Continuation(0.5), Distractor(0.5))
    sets = ("source_last", "target_ids", "before_target", "target_positions")
    batch = Collator(words.pad_token_id, sets, row_length=row_length)(rows)
    latent, ids, kinds = batch["latent"], batch["input_ids"], set()
    for r, g in (latent["source_last"][..., 0] >= 0).nonzero().tolist():
        due, right = latent["target_positions"][r, g], latent["target_ids"][r, g]
        due, right, last = due[due >= 0], right[right >= 0], int(latent["source_last"][r, g, 0])
        if (before := int(latent["before_target"][r, g, 0])) >= 0:
            assert due[0] == before
            assert ids[r, due + 1].tolist() == right.tolist()  # in the text the tokens themselves are there
            kinds.add("in context")
            continue
        assert due[0] == last
        assert len(due) in (1, len(right))
        assert (latent["segments"][r, due] == latent["segments"][r, last]).all()
        assert (due.diff() == 1).all()
        end = int(due[-1]) + 1  # there the segment ends
        assert end == ids.shape[1] or latent["segments"][r, end] != latent["segments"][r, last]
        kinds.add(len(due) > 1)
    assert kinds == {"in context", True, False}
