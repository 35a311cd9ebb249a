"""Documents to ids: which span is read where, and with which ids the other one goes on."""

import pytest
from tokenizers import processors

from latentlm.data.documents import Document
from latentlm.data.synthetic.facts import Facts
from latentlm.data.text.encode import encode, encode_dataset
from latentlm.data.text.tokenizers import bpe_tokenizer, word_tokenizer

FACTS = Facts(num_a_to_b=5, num_b_to_a=5, num_both=3, templates_per_fact=3)
DOCUMENTS = FACTS.documents()
TEXTS = [document.text for document in DOCUMENTS]


def _with_bos():
    tokenizer = bpe_tokenizer(TEXTS, 400)
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    bos = ("<bos>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[bos])
    return tokenizer


TOKENIZERS = {"word": word_tokenizer(TEXTS), "bpe": bpe_tokenizer(TEXTS, 400), "bos": _with_bos()}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_labels_are_the_text_and_eos_without_the_first_position(name):
    tokenizer = TOKENIZERS[name]
    for document in DOCUMENTS[:10]:
        example = encode(document, tokenizer, 64)
        assert example.input_ids[-1] == tokenizer.eos_token_id
        assert example.input_ids.count(tokenizer.eos_token_id) == 1
        assert example.labels == [-100, *example.input_ids[1:]]
        assert tokenizer.decode(example.input_ids, skip_special_tokens=True).strip() == document.text
        assert not example.span_pairs


@pytest.mark.parametrize("name", TOKENIZERS)
def test_each_ordered_pair_has_its_source_end_and_the_other_text(name):
    tokenizer = TOKENIZERS[name]
    for document in DOCUMENTS:
        example = encode(document, tokenizer, 64, FACTS.sets)
        things = [document.text[slice(*span)] for span in document.spans]
        assert len(example.span_pairs) == 2
        in_context = 0
        for pair, (source, target) in zip(example.span_pairs, [things, things[::-1]], strict=True):
            assert tokenizer.decode(pair.target_ids).strip() == target
            if document.text.index(source) < document.text.index(target):
                in_context += 1
                assert not pair.isolated_source
                read = tokenizer.decode(example.input_ids[: pair.source_last + 1], skip_special_tokens=True)
                assert read.strip() == document.text[: document.text.index(source) + len(source)]
            else:
                assert pair.source_last == len(pair.isolated_source) - 1
                assert pair.isolated_source == tokenizer(source)["input_ids"]
                assert tokenizer.decode(pair.isolated_source, skip_special_tokens=True).strip() == source
        assert in_context == 1


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_other_span_has_the_ids_it_has_in_running_text(name):
    tokenizer = TOKENIZERS[name]
    for document in DOCUMENTS:
        example = encode(document, tokenizer, 64, FACTS.sets)
        ids, (later,) = example.input_ids, [pair.target_ids for pair in example.span_pairs if not pair.isolated_source]
        assert any(ids[k : k + len(later)] == later for k in range(len(ids)))  # the later span follows a space


def test_bos_opens_a_lone_span_but_not_a_continuation():
    tokenizer = TOKENIZERS["bos"]
    pairs = [pair for document in DOCUMENTS for pair in encode(document, tokenizer, 64, FACTS.sets).span_pairs]
    assert {pair.isolated_source[0] for pair in pairs if pair.isolated_source} == {tokenizer.bos_token_id}
    assert all(tokenizer.bos_token_id not in pair.target_ids for pair in pairs)


def test_three_spans_give_six_pairs_and_a_shared_token_is_never_read_in_place():
    text = "one two three"
    tokenizer = word_tokenizer([text])
    pairs = encode(Document(text, [(0, 3), (4, 7), (8, 13)]), tokenizer, 9, ("source_last",)).span_pairs
    assert [None if pair.isolated_source else pair.source_last for pair in pairs] == [0, 0, None, 1, None, None]
    pairs = encode(Document(text, [(8, 10), (10, 13)]), tokenizer, 9, ("source_last",)).span_pairs
    assert all(pair.isolated_source for pair in pairs)  # both halves are one token


def test_pairs_cut_by_max_length_are_dropped_and_counted(caplog):
    tokenizer = TOKENIZERS["word"]
    example = encode(DOCUMENTS[0], tokenizer, 5, FACTS.sets)
    assert len(example.input_ids) == 5
    assert not example.span_pairs
    data = encode_dataset(DOCUMENTS[:4], tokenizer, 8, FACTS.sets)
    assert data.column_names == ["input_ids", "labels", "span_pairs"]
    assert "pairs of spans left out because max_length=8 cuts them" in caplog.text


def test_a_term_without_a_single_pair_is_refused():
    tokenizer = TOKENIZERS["word"]
    with pytest.raises(ValueError, match=r"max_length: 5 cuts a span of every document"):
        encode_dataset(DOCUMENTS[:4], tokenizer, 5, FACTS.sets)
    with pytest.raises(ValueError, match=r"documents: none has two spans, but source_last"):
        encode_dataset([Document("plain", [])], tokenizer, 5, ("source_last",))
    assert len(encode_dataset(DOCUMENTS[:4], tokenizer, 5, long_documents="truncate")) == 4  # nothing reads the spans


def test_dataset_rows_are_the_examples():
    tokenizer = TOKENIZERS["bpe"]
    data = encode_dataset(DOCUMENTS[:6], tokenizer, 64, FACTS.sets)
    for row, document in zip(data, DOCUMENTS, strict=False):
        example = encode(document, tokenizer, 64, FACTS.sets)
        assert row == {key: example.to_row()[key] for key in ("input_ids", "labels", "span_pairs")}


def test_chat_is_the_template_with_one_eos_at_the_end():
    tokenizer = TOKENIZERS["bos"]
    tokenizer.chat_template = "{% for m in messages %}{{ bos_token }}{{ m.role }} {{ m.content }}<eos>\n{% endfor %}"
    messages = [{"role": "user", "content": "who"}, {"role": "assistant", "content": "me"}]
    example = encode(Document("", [], messages=messages), tokenizer, 64)
    assert tokenizer.decode(example.input_ids) == "<bos>user who<eos>\n<bos>assistant me<eos>\n"
    with pytest.raises(ValueError, match="chat_template"):
        encode(Document("", [], messages=messages), TOKENIZERS["bpe"], 64)


@pytest.mark.parametrize(
    ("document", "sets", "line"),
    [
        (Document("a  b", [(1, 3), (3, 4)]), ("source_last",), "matches no token"),
        (Document("a b", [(0, 9)]), ("source_last",), r"\[0, 9\] is not inside"),
        (Document("a b", [(1, 1)]), ("source_last",), r"\[1, 1\] is not inside"),
        (Document("", []), (), "no tokens"),
        (Document("a b", []), ("ends",), r"sets: unknown \['ends'\]"),
    ],
)
def test_wrong_documents_are_named(document, sets, line):
    with pytest.raises(ValueError, match=line):
        encode(document, TOKENIZERS["word"], 64, sets)


def test_wrong_tokenizer_length_or_no_documents_are_named():
    tokenizer = word_tokenizer(["a b"])
    with pytest.raises(ValueError, match="max_length: 1"):
        encode(Document("a b", []), tokenizer, 1)
    with pytest.raises(ValueError, match="documents: there are none"):
        encode_dataset([], tokenizer, 8)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"set tokenizer.eos_token"):
        encode(Document("a b", []), tokenizer, 8)
