"""Which spans are related: annotated or drawn, isolated or in context, and where the target is."""

import pytest
import torch

from latentlm.config.schema import ConfigError, parse
from latentlm.data import Annotated, Chunks, Collator, Document, Facts, SpanPairs, encode_dataset, word_tokenizer

DOCUMENTS = Facts(num_a_to_b=4, num_b_to_a=4, num_both=3, templates_per_fact=3).documents()
TOKENIZER = word_tokenizer([document.text for document in DOCUMENTS])
SETS = ("source_last", "target_ids", "target_last", "before_target", "target_positions")


def test_chunks_are_disjoint_runs_of_words_and_the_same_every_time():
    part = Chunks(shortest=2, longest=4)
    marked = part.mark(DOCUMENTS)
    assert marked == part.mark(DOCUMENTS) != Chunks(shortest=2, longest=4, seed=1).mark(DOCUMENTS)
    lengths = set()
    for document in marked:
        (a, b), (c, d) = document.spans
        assert 0 <= a < b < c < d <= len(document.text)
        for start, end in document.spans:
            words = document.text[start:end]
            assert words == words.strip()
            assert document.text[start - 1 : start] in ("", " ")
            assert document.text[end : end + 1] in ("", " ")
            lengths.add(len(words.split()))
    assert lengths == {2, 3, 4}


def test_chunks_leave_out_what_is_too_short():
    assert Chunks(shortest=2).mark([Document("three short words")])[0].spans == ()


@pytest.mark.parametrize("text", ["one two three four", "a b c d e"])
def test_chunks_fit_a_text_that_is_just_long_enough(text):
    (a, b), (c, d) = Chunks(shortest=2, longest=9).mark([Document(text)])[0].spans
    assert 0 <= a < b < c < d <= len(text)


def test_chunks_refuse_impossible_lengths():
    with pytest.raises(ConfigError, match="shortest 4 and longest 3"):
        parse(SpanPairs, {"kind": "chunks", "shortest": 4, "longest": 3}, "span_pairs")


def test_in_context_reads_the_later_span_after_the_earlier_one():
    isolated = encode_dataset(DOCUMENTS, TOKENIZER, 64, SETS, source_context="isolated")
    in_context = encode_dataset(DOCUMENTS, TOKENIZER, 64, SETS, source_context="in_context")
    assert any(pair["isolated_source"] for row in isolated for pair in row["span_pairs"])
    for row in in_context:
        assert not any(pair["isolated_source"] for pair in row["span_pairs"])
        assert len({pair["source_last"] for pair in row["span_pairs"]}) == 2


def test_only_the_target_spans_are_targets():
    plain = encode_dataset(DOCUMENTS, TOKENIZER, 64, SETS)
    for number in (0, 1):
        rows = encode_dataset(Annotated(target_span_ids=(number,)).mark(DOCUMENTS), TOKENIZER, 64, SETS)
        for row, both, document in zip(rows, plain, DOCUMENTS, strict=True):
            said = document.text[slice(*document.spans[number])]
            assert [TOKENIZER.decode(pair["target_ids"]) for pair in row["span_pairs"]] == [said]
            assert row["span_pairs"][0] in both["span_pairs"]
    assert list(encode_dataset(Annotated(target_span_ids=(0, 1)).mark(DOCUMENTS), TOKENIZER, 64, SETS)) == list(plain)
    with pytest.raises(ValueError, match=r"target_span_ids \[2\], but there are 2 spans; count from 0"):
        Annotated(target_span_ids=(2,)).mark(DOCUMENTS)
    with pytest.raises(ConfigError, match="the first one is 0"):
        parse(SpanPairs, {"kind": "annotated", "target_span_ids": [-1]}, "span_pairs")


@pytest.mark.parametrize("packing", ["packed", "padding_free"])
def test_target_last_is_the_last_token_of_the_isolated_target(packing):
    rows = list(encode_dataset(DOCUMENTS, TOKENIZER, 64, SETS))
    batch = Collator(TOKENIZER.pad_token_id, SETS, packing)(rows)
    latent, ids = batch["latent"], batch["input_ids"]
    seen = 0
    for r, g in (latent["target_last"][..., 0] >= 0).nonzero().tolist():
        end = int(latent["target_last"][r, g, 0])
        segment = latent["segments"][r]
        own = ids[r][segment == segment[end]]
        other = latent["target_ids"][r, g]
        assert own.tolist() == other[other >= 0].tolist()  # words: the same ids isolated and in running text
        assert int((segment == segment[end]).nonzero()[-1]) == end
        assert segment[end] != segment[int(latent["source_last"][r, g, 0])]
        seen += 1
    assert seen == sum(len(row["span_pairs"]) for row in rows)
    assert torch.equal(latent["target_last"] >= 0, latent["source_last"] >= 0)


@pytest.mark.parametrize("packing", ["packed", "padding_free", "none"])
@pytest.mark.parametrize("source_context", ["isolated", "in_context"])
def test_the_target_begins_after_before_target_where_it_comes_later(packing, source_context):
    sets = ("source_last", "target_ids", "before_target")
    rows = list(encode_dataset(DOCUMENTS, TOKENIZER, 64, sets, source_context=source_context))
    batch = Collator(TOKENIZER.pad_token_id, sets, packing)(rows)
    latent, ids = batch["latent"], batch["input_ids"]
    valid = latent["before_target"][..., 0] >= 0
    assert not (valid & (latent["source_last"][..., 0] < 0)).any()
    for r, g in valid.nonzero().tolist():
        before, end = int(latent["before_target"][r, g, 0]), int(latent["source_last"][r, g, 0])
        other = latent["target_ids"][r, g]
        other = other[other >= 0].tolist()
        assert ids[r, before + 1 : before + 1 + len(other)].tolist() == other
        assert end <= before  # the source has been read where the target is due
        assert latent["segments"][r, end] == latent["segments"][r, before] == latent["segments"][r, before + 1]
    assert int(valid.sum()) == len(rows)  # of the two pairs of a document one has its source first


def test_target_last_needs_both_spans_in_a_row():
    with pytest.raises(ValueError, match="use packed"):
        Collator(0, SETS, "none")
