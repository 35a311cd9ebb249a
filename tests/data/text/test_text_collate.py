"""Batches: segments are apart, every span end is where it should be, and padding means nothing."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from latentlm.data.documents import Document
from latentlm.data.synthetic.facts import Facts
from latentlm.data.text.collate import Collator
from latentlm.data.text.encode import encode, encode_dataset
from latentlm.data.text.tokenizers import bpe_tokenizer, word_tokenizer

FACTS = Facts(num_a_to_b=5, num_b_to_a=5, num_both=3, templates_per_fact=2)
SETS = ("source_last", "target_ids")
DOCUMENTS = FACTS.documents()
TOKENIZER = bpe_tokenizer([document.text for document in DOCUMENTS], 400)
EXAMPLES = list(encode_dataset(DOCUMENTS, TOKENIZER, 64, SETS))
PAD = TOKENIZER.pad_token_id
COLLATORS = [
    Collator(PAD, SETS, "none"),
    Collator(PAD, SETS),
    Collator(PAD, SETS, "packed", 128),
    Collator(PAD, SETS, "padding_free"),
]
layouts = pytest.mark.parametrize("collator", COLLATORS, ids=["none", "packed", "row_length", "padding_free"])


def _segments(batch):
    """(ids, labels, positions or None) of each segment of each row, padding left out."""
    for r, row in enumerate(batch["latent"]["segments"]):
        for s in range(int(row.max()) + 1):
            at = (row == s).nonzero().flatten()
            assert at.tolist() == list(range(int(at[0]), int(at[-1]) + 1))
            positions = batch["position_ids"][r, at].tolist() if "position_ids" in batch else None
            yield batch["input_ids"][r, at].tolist(), batch["labels"][r, at].tolist(), positions


def _ends(batch):
    """((ids read up to the span end, other ids), row, position) of every pair."""
    ends, others = batch["latent"]["source_last"], batch["latent"]["target_ids"]
    assert ends.shape == (*others.shape[:2], 1)
    assert len(batch["input_ids"]) == len(ends)
    assert bool(((ends[..., 0] >= 0) == (others >= 0).any(-1)).all())
    for r, g in (ends[..., 0] >= 0).nonzero().tolist():
        end = int(ends[r, g, 0])
        segment = batch["latent"]["segments"][r]
        assert segment[end] >= 0
        start = int((segment == segment[end]).nonzero()[0])
        other = others[r, g][others[r, g] >= 0]
        yield (tuple(batch["input_ids"][r, start : end + 1].tolist()), tuple(other.tolist())), r, end


def _pairs(batch):
    return sorted(key for key, _, _ in _ends(batch))


def _expected_pairs(examples):
    return sorted(
        (tuple((p["isolated_source"] or e["input_ids"])[: p["source_last"] + 1]), tuple(p["target_ids"]))
        for e in examples
        for p in e["span_pairs"]
    )


@layouts
def test_every_document_and_lone_span_is_one_segment(collator):
    segments = list(_segments(collator(EXAMPLES)))
    isolated = [p["isolated_source"] for e in EXAMPLES for p in e["span_pairs"] if p["isolated_source"]]
    expected = [(e["input_ids"], e["labels"]) for e in EXAMPLES] + [(ids, [-100] * len(ids)) for ids in isolated]
    assert sorted((ids, labels) for ids, labels, _ in segments) == sorted(expected)


@layouts
def test_every_span_end_is_the_end_of_the_right_span_and_comes_with_the_other_one(collator):
    assert _pairs(collator(EXAMPLES)) == _expected_pairs(EXAMPLES)
    texts = {(a, b) for f in FACTS.facts() for a, b in ((f.a, f.b), (f.b, f.a))}
    for read, other in _pairs(collator(EXAMPLES)):
        read, other = TOKENIZER.decode(read), TOKENIZER.decode(other).strip()
        assert [source for source, partner in texts if partner == other and read.endswith(source)]
        assert other not in read


@layouts
def test_positions_mask_and_padding_agree_with_the_segments(collator):
    batch = collator(EXAMPLES)
    padding = batch["latent"]["segments"] == -1
    assert bool((batch["labels"][padding] == -100).all())
    assert bool((batch["input_ids"][padding] == PAD).all())
    if collator.packing == "none":
        assert "position_ids" not in batch
        assert torch.equal(batch["attention_mask"] == 0, padding)
    else:
        assert "attention_mask" not in batch
        for positions, row in zip(batch["position_ids"], batch["latent"]["segments"], strict=True):
            for segment in row.unique():
                at = positions[row == segment]
                assert at.tolist() == list(range(len(at)))
    assert all(labels[0] == -100 for _, labels, _ in _segments(batch))


def test_flat_is_one_row_without_padding():
    batch = COLLATORS[3](EXAMPLES)
    assert len(batch["input_ids"]) == 1
    assert bool((batch["latent"]["segments"] >= 0).all())


def test_packing_conserves_tokens_and_fills_rows():
    per_row, packed = COLLATORS[1](EXAMPLES), COLLATORS[2](EXAMPLES)
    assert packed["input_ids"].shape[1] == 128
    assert len(packed["input_ids"]) < len(per_row["input_ids"]) == len(EXAMPLES)
    for key in ("input_ids", "labels"):
        kept = [b[key][b["latent"]["segments"] >= 0].sort().values for b in (per_row, packed)]
        assert torch.equal(*kept)
    sizes = (packed["latent"]["segments"] >= 0).sum(1)
    smallest = min(len(e["input_ids"]) + sum(len(p["isolated_source"]) for p in e["span_pairs"]) for e in EXAMPLES)
    assert int(sizes[:-1].min()) + smallest > 128  # first fit leaves no room for the smallest one


@layouts
def test_larger_batches_only_add_padding(collator):
    whole = collator(EXAMPLES)
    parts = [collator([example]) for example in EXAMPLES]
    assert _pairs(whole) == sorted(pair for part in parts for pair in _pairs(part))
    assert sorted(_segments(whole)) == sorted(segment for part in parts for segment in _segments(part))


@pytest.mark.parametrize("collator", COLLATORS[1:], ids=["packed", "row_length", "padding_free"])
def test_a_model_reads_packed_spans_as_it_reads_rows(collator):
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(TOKENIZER), use_cache=False, **size)).eval()

    def read(collate):
        batch = collate(EXAMPLES[:6])
        latent = batch.pop("latent")
        states = model(**batch, output_hidden_states=True).hidden_states[-1]
        return {key: states[r, end] for key, r, end in _ends({**batch, "latent": latent})}

    with torch.no_grad():
        packed, rows = read(collator), read(COLLATORS[0])
    assert packed.keys() == rows.keys()
    for key, state in packed.items():
        torch.testing.assert_close(state, rows[key], atol=1e-5, rtol=1e-5)


def test_without_sets_there_are_only_documents():
    for layout in ("none", "packed", "padding_free"):
        batch = Collator(PAD, (), layout)(EXAMPLES)
        assert list(batch["latent"]) == ["segments"]
        assert sorted(ids for ids, _, _ in _segments(batch)) == sorted(e["input_ids"] for e in EXAMPLES)


def test_without_pairs_the_sets_are_padding():
    batch = COLLATORS[1]([encode(document, TOKENIZER, 64).to_row() for document in DOCUMENTS[:3]])
    assert batch["latent"]["source_last"].tolist() == [[[-1]]] * 3
    assert batch["latent"]["target_ids"].tolist() == [[[-1]]] * 3


def test_a_span_with_two_partners_is_read_once():
    text = "one two three"
    tokenizer = word_tokenizer([text])
    example = encode(Document(text, [(0, 3), (4, 7), (8, 13)]), tokenizer, 9, SETS).to_row()
    batch = Collator(tokenizer.pad_token_id, SETS)([example])
    assert batch["latent"]["segments"].tolist() == [[0, 0, 0, 0, 1, 2]]
    assert sorted(batch["latent"]["source_last"].flatten().tolist()) == [0, 0, 1, 4, 5, 5]


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"sets": ("ends",)}, "sets"),
        ({"packing": "none", "row_length": 8}, "row_length"),
        ({"row_length": 1}, "row_length"),
    ],
)
def test_wrong_fields_are_named(fields, key):
    with pytest.raises(ValueError, match=f"^{key}: "):
        Collator(PAD, **fields)


def test_a_document_longer_than_a_row_is_named():
    with pytest.raises(ValueError, match=r"row_length: 8 < .* lower max_length"):
        Collator(PAD, SETS, "packed", 8)(EXAMPLES)
