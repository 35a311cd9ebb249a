"""Span crop: a share of the long isolated spans lose words of their beginning."""

import pytest

from latentlm.config.schema import ConfigError, parse
from latentlm.data import SETS, Augmentation, Document, augment_documents, conversation, encode_dataset, word_tokenizer
from latentlm.data.text.augment import SpanCrop
from latentlm.experiment.recipe import load_recipe

TEXT = "Ada Reed is the cook who crossed the silent bell."
DOCUMENTS = [Document(TEXT, [(0, 8), (12, len(TEXT) - 1)])] * 200


def _conversations():
    name, what = "Ada Reed", "It is the cook who crossed the silent bell."
    messages = [{"role": "user", "content": name}, {"role": "assistant", "content": what}]
    return [conversation(messages, spans=[(0, 8), (15, len(name) + len(what))])] * 200


@pytest.mark.parametrize("documents", [DOCUMENTS, _conversations()], ids=["text", "conversation"])
def test_a_cropped_span_keeps_its_last_words_and_at_least_half_of_them(documents):
    words = word_tokenizer([document.text.replace(".", " .") for document in documents])
    words.chat_template = "{% for m in messages %}{{ m.content }} <eos> {% endfor %}"

    def rows(*augment):
        return list(encode_dataset(augment_documents(documents, augment), words, 64, SETS))

    cropped = rows(SpanCrop(0.5))
    assert cropped == rows(SpanCrop(0.5)) != rows(SpanCrop(0.5, seed=1))
    read = [words.decode(pair["isolated_source"]).split() for row in cropped for pair in row["span_pairs"]]
    read = [own for own in read if own]
    whole = ["the", "cook", "who", "crossed", "the", "silent", "bell"]
    assert len(read) == 200
    assert all(own == whole[-len(own) :] for own in read)
    lengths = [len(own) for own in read]
    assert set(lengths) == {4, 5, 6, 7}
    assert 70 < sum(length < 7 for length in lengths) < 130
    for row, plain in zip(cropped, rows(), strict=True):
        assert row["input_ids"] == plain["input_ids"]
        assert [p["target_ids"] for p in row["span_pairs"]] == [p["target_ids"] for p in plain["span_pairs"]]


def test_a_name_stays_whole():
    for document in augment_documents(DOCUMENTS[:20], [SpanCrop(1.0)]):
        assert document.edit(0).skip == 0 < document.edit(1).skip


@pytest.mark.parametrize("kind", ["span_crop", "continuation", "distractor", "gist_mask"])
def test_a_probability_is_a_share(kind):
    for prob in (1.2, -0.1):
        with pytest.raises(ConfigError, match=f"augment: {kind}: prob {prob} is a share"):
            parse(Augmentation, {"kind": kind, "prob": prob}, "augment")


def test_a_recipe_without_isolated_sources_refuses_it():
    words = ["data.augment=[span_crop]", "data.span_pairs={kind: annotated, source_context: in_context}"]
    with pytest.raises(ConfigError, match="span_crop changes isolated sources, there are none with span_pairs"):
        load_recipe("reversal", words)
