"""Nothing is left out unsaid: long documents, spans that cannot be used, rows that cannot be read."""

import pytest

from latentlm.data import SETS, Document, encode, encode_dataset, word_tokenizer

WORDS = [f"w{k}" for k in range(1, 40)]
LONG = " ".join(WORDS)
TOKENIZER = word_tokenizer([LONG, "one two three", "caf\u00e9 au lait"])


def _lines(caplog):
    lines = [record.getMessage() for record in caplog.records]
    assert all("\n" not in line and len(line) < 800 for line in lines)
    return lines


def _predicted(dataset):
    return [label for row in dataset for label in row["labels"] if label != -100]


@pytest.mark.parametrize("max_length", [2, 3, 7, 8, 39, 40, 41])
def test_every_token_of_a_long_document_is_predicted_once(max_length, caplog):
    whole = encode(Document(LONG), TOKENIZER, 100)
    dataset = encode_dataset([Document(LONG)], TOKENIZER, max_length)
    assert _predicted(dataset) == whole.labels[1:]
    assert all(2 <= len(row["input_ids"]) <= max_length for row in dataset)
    assert all(row["labels"][0] == -100 for row in dataset)
    assert bool(_lines(caplog)) == (max_length < 40)


@pytest.mark.parametrize(
    ("long_documents", "count", "said"),
    [
        ("split", 7, "1 of 2 documents have more than max_length=8 tokens (up to 40): split into 6 pieces"),
        ("truncate", 2, "truncated, 32 of 43 tokens (74 %) are left out"),
        ("drop", 1, "dropped, 40 of 43 tokens (93 %) are left out"),
    ],
)
def test_long_documents_are_counted(long_documents, count, said, caplog):
    documents = [Document(LONG), Document("one two")]
    assert len(encode_dataset(documents, TOKENIZER, 8, long_documents=long_documents)) == count
    (line,) = _lines(caplog)
    assert said in line
    assert f"long_documents={long_documents}" in line


def test_all_too_long_is_an_error():
    with pytest.raises(ValueError, match="long_documents: all have more than max_length=8 tokens"):
        encode_dataset([Document(LONG)], TOKENIZER, 8, long_documents="drop")


def test_pairs_move_with_their_piece(caplog):
    def span(word):
        start = LONG.index(f"{word} ")
        return start, start + len(word)

    document = Document(LONG, [span("w20"), span("w22"), span("w3")])
    assert len(encode(document, TOKENIZER, 100, SETS).span_pairs) == 6
    dataset = encode_dataset([document], TOKENIZER, 12, SETS, token_spans=True)
    kept = [(row, pair) for row in dataset for pair in row["span_pairs"]]
    assert [TOKENIZER.decode(pair["target_ids"]) for _, pair in kept] == ["w22", "w20"]
    for row, pair in kept:
        if not pair["isolated_source"]:
            assert TOKENIZER.decode(row["input_ids"][pair["source_last"]]) == "w20"
            assert TOKENIZER.decode(row["input_ids"][pair["before_target"] + 1]) == "w22"
            assert pair["target_positions"] == [pair["before_target"]]
    spans = [[TOKENIZER.decode(row["input_ids"][first:stop]) for first, stop in row["spans"]] for row in dataset]
    assert [words for words in spans if words] == [["w3"], ["w20", "w22"]]
    answers = [TOKENIZER.decode(row["input_ids"][slice(*row["answer"])]) for row in dataset]
    assert [answer for answer in answers if answer] == ["w22"]
    assert "4 pairs of spans left out because max_length=12 cuts them" in _lines(caplog)


GOOD = Document("one two", [(0, 3), (4, 7)], origin="row 0")


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([(0, 3), (5, 99)], "row 7: span [5, 99] is not inside 'one two three' of 13 characters"),
        ([(-1, 3), (4, 7)], "row 7: span [-1, 3] is not inside"),
        ([(4, 4), (4, 7)], "row 7: span [4, 4] is not inside"),
        ([(0, 3), (3, 4)], "row 7: span [3, 4] ' ' matches no token"),
    ],
)
def test_a_document_with_an_impossible_span_is_left_out_and_named(spans, said, caplog):
    bad = Document("one two three", spans, origin="row 7")
    dataset = encode_dataset([GOOD, bad], TOKENIZER, 9, SETS)
    assert len(dataset) == 1
    assert said in _lines(caplog)[0]
    with pytest.raises(ValueError, match="documents: none can be used: row 7: span"):
        encode_dataset([bad], TOKENIZER, 9, SETS)


@pytest.mark.slow
def test_a_hundred_thousand_characters_are_not_printed(caplog):
    long = Document(LONG * 1000, [(0, 10**9)])
    encode_dataset([GOOD, *[long] * 50], TOKENIZER, 9, SETS)
    assert "50 documents that cannot be used left out" in _lines(caplog)[-1]


@pytest.mark.parametrize("spans", [[(0, 3), (0, 3)], [(0, 7), (4, 7)], [(0, 7), (4, 13)]])
def test_duplicated_nested_and_overlapping_spans_are_no_pair(spans, caplog):
    document = Document("one two three", spans, origin="row 7")
    dataset = encode_dataset([GOOD, document], TOKENIZER, 9, SETS)
    assert [len(row["span_pairs"]) for row in dataset] == [2, 0]
    (line,) = _lines(caplog)
    assert "2 pairs of overlapping spans left out: row 7: [" in line
    with pytest.raises(ValueError, match="all spans overlap"):
        encode_dataset([document], TOKENIZER, 9, SETS)


def test_offsets_in_bytes_or_tokens_are_noticed(caplog):
    in_bytes = Document("caf\u00e9 au lait", [(0, 5), (9, 13)])  # one too far after the accent
    with pytest.raises(ValueError, match="is not inside"):
        encode_dataset([in_bytes], TOKENIZER, 9, SETS)
    in_tokens = Document("one two three", [(0, 1), (1, 2)], origin="row 3")
    encode_dataset([in_tokens] * 3, TOKENIZER, 9, ("source_last",), source_context="in_context")
    assert any("6 of 6 spans begin or end inside a word (row 3: 'o'" in line for line in _lines(caplog))
