"""Which spans are related: given or drawn, read alone or in place, and the other span's own end."""

import pytest
import torch

from latentlm.config.schema import ConfigError, parse
from latentlm.data import Chunks, Collator, Facts, Given, Pairs, encode_dataset, word_tokenizer

DOCUMENTS = Facts(num_a_to_b=4, num_b_to_a=4, num_both=3, templates_per_fact=3).documents()
TOKENIZER = word_tokenizer([document["text"] for document in DOCUMENTS])
SETS = ("source_last", "target_ids", "target_last", "before_target", "target_positions")


def test_chunks_are_disjoint_runs_of_words_and_the_same_every_time():
    part = Chunks(shortest=2, longest=4)
    marked = part.mark(DOCUMENTS)
    assert marked == part.mark(DOCUMENTS) != Chunks(shortest=2, longest=4, seed=1).mark(DOCUMENTS)
    lengths = set()
    for document in marked:
        (a, b), (c, d) = document["spans"]
        assert 0 <= a < b < c < d <= len(document["text"])
        for start, end in document["spans"]:
            words = document["text"][start:end]
            assert words == words.strip()
            assert document["text"][start - 1 : start] in ("", " ")
            assert document["text"][end : end + 1] in ("", " ")
            lengths.add(len(words.split()))
    assert lengths == {2, 3, 4}


def test_chunks_leave_out_what_is_too_short():
    assert Chunks(shortest=2).mark([{"text": "three short words", "spans": []}])[0]["spans"] == []


@pytest.mark.parametrize("text", ["one two three four", "a b c d e"])
def test_chunks_fit_a_text_that_is_just_long_enough(text):
    (a, b), (c, d) = Chunks(shortest=2, longest=9).mark([{"text": text}])[0]["spans"]
    assert 0 <= a < b < c < d <= len(text)


def test_chunks_refuse_impossible_lengths():
    with pytest.raises(ConfigError, match="shortest 4 and longest 3"):
        parse(Pairs, {"kind": "chunks", "shortest": 4, "longest": 3}, "pairs")


def test_in_place_reads_the_later_span_behind_the_earlier_one():
    alone = encode_dataset(DOCUMENTS, TOKENIZER, 64, SETS, Given().read)
    in_place = encode_dataset(DOCUMENTS, TOKENIZER, 64, SETS, Given(read="in_place").read)
    assert any(pair["end"] < 0 for row in alone for pair in row["pairs"])
    for row in in_place:
        ends = [pair["end"] for pair in row["pairs"]]
        assert min(ends) >= 0
        assert len(set(ends)) == 2


def _documents(count):
    text = "Ada Reed is the cook who crossed the silent bell."
    return [{"text": text, "spans": [[0, 8], [12, len(text) - 1]]} for _ in range(count)]


@pytest.mark.parametrize("chat", [False, True])
def test_a_crop_leaves_a_span_its_last_words_and_at_least_half_of_them(chat):
    documents = _documents(200)
    if chat:
        name, what = "Ada Reed", "It is the cook who crossed the silent bell."
        said = [{"role": "user", "content": name}, {"role": "assistant", "content": what}]
        text = f"{name}\n{what}"
        documents = [{"messages": said, "text": text, "spans": [[0, 8], [15, len(text) - 1]]}] * 200
    words = word_tokenizer([document["text"].replace(".", " .") for document in documents])
    words.chat_template = "{% for m in messages %}{{ m.content }} <eos> {% endfor %}"
    part = Given(crop=0.5)
    rows = encode_dataset(part.mark(documents), words, 64, SETS)
    assert list(rows) == list(encode_dataset(part.mark(documents), words, 64, SETS))
    assert list(rows) != list(encode_dataset(Given(crop=0.5, seed=1).mark(documents), words, 64, SETS))
    read = [words.decode(pair["alone"]).split() for row in rows for pair in row["pairs"] if pair["end"] < 0]
    whole = ["the", "cook", "who", "crossed", "the", "silent", "bell"]
    assert len(read) == 200
    assert all(own == whole[-len(own) :] for own in read)
    lengths = [len(own) for own in read]
    assert set(lengths) == {4, 5, 6, 7}
    assert 70 < sum(length < 7 for length in lengths) < 130
    uncropped = encode_dataset(documents, words, 64, SETS)
    for cropped, plain in zip(rows, uncropped, strict=True):
        assert cropped["input_ids"] == plain["input_ids"]
        assert [pair["other"] for pair in cropped["pairs"]] == [pair["other"] for pair in plain["pairs"]]


def test_a_name_is_not_cropped():
    for document in Given(crop=1.0).mark(_documents(20)):
        assert document["cuts"][0] == 0 < document["cuts"][1]


def test_reading_on_goes_on_with_what_stands_behind_such_a_span_in_some_document():
    documents = [
        {"text": "Ada Reed is the cook .", "spans": [[0, 8], [12, 20]]},
        {"text": "Ada Reed has long been known to all of us here as the cook .", "spans": [[0, 8], [50, 58]]},
        {"text": "the cook was named Ada Reed .", "spans": [[19, 27], [0, 8]]},
        {"text": "the cook , Ada Reed .", "spans": [[11, 19], [0, 8]]},
    ] * 100
    part = Given(read_on=0.6)
    words = word_tokenizer([document["text"] for document in documents])
    rows = encode_dataset(part.mark(documents), words, 64, SETS)
    assert list(rows) == list(encode_dataset(part.mark(documents), words, 64, SETS))
    assert list(rows) != list(encode_dataset(Given(read_on=0.6, seed=1).mark(documents), words, 64, SETS))
    alone = [words.decode(pair["alone"]) for row in rows for pair in row["pairs"] if pair["end"] < 0]
    names = {"Ada Reed is", "Ada Reed has long been known to all of us"}  # eight words, and no more
    whats = {"the cook was named", "the cook,"}
    assert set(alone) == {"Ada Reed", "the cook"} | names | whats
    on = sum(text not in ("Ada Reed", "the cook") for text in alone)
    assert on / len(alone) == pytest.approx(0.6, abs=0.1)
    for row, plain in zip(rows, encode_dataset(documents, words, 64, SETS), strict=True):
        assert row["input_ids"] == plain["input_ids"]
        assert [pair["other"] for pair in row["pairs"]] == [pair["other"] for pair in plain["pairs"]]
        assert [pair["end"] for pair in row["pairs"]] == [pair["end"] for pair in plain["pairs"]]


def test_reading_on_where_no_span_stands_before_another_of_its_number():
    documents = _documents(50)  # the description always ends the sentence: it goes on as a name does
    tails = {tuple(document["tails"]) for document in Given(read_on=1.0).mark(documents)}
    assert tails == {(" is", " is")}
    lonely = [{"text": "Ada Reed", "spans": [[0, 8]]}, {"text": "nobody"}]
    assert [document["tails"] for document in Given(read_on=1.0).mark(lonely)] == [[""], []]


def _people(count):
    names, crafts = [f"Ada Reed{k} Moss" for k in range(count)], [f"the old cook{k}" for k in range(count)]
    told = [(f"{name} is {craft} .", name, craft) for name, craft in zip(names, crafts, strict=True)]
    told += [(f"{craft} was {name} .", name, craft) for name, craft in zip(names, crafts, strict=True)]
    return [
        {"text": text, "spans": [[i := text.index(name), i + len(name)], [j := text.index(craft), j + len(craft)]]}
        for text, name, craft in told
    ]


def test_a_stranger_stands_where_the_other_span_is_due_and_is_never_the_right_one():
    documents = _people(6) * 30
    words = word_tokenizer([document["text"] for document in documents])
    part = Given(read_on=1.0, strangers=0.7)
    rows = encode_dataset(part.mark(documents), words, 64, SETS)
    assert list(rows) == list(encode_dataset(part.mark(documents), words, 64, SETS))
    assert list(rows) != list(
        encode_dataset(Given(read_on=1.0, strangers=0.7, seed=1).mark(documents), words, 64, SETS)
    )
    seen = []
    for row in rows:
        for pair in row["pairs"]:
            if pair["end"] >= 0:
                assert pair["strange"] == 0
                continue
            cut = len(pair["alone"]) - pair["strange"]
            read, stranger = (words.decode(part).split() for part in (pair["alone"][:cut], pair["alone"][cut:]))
            assert read[-1] == ("was" if read[0] == "the" else "is")
            right = words.decode(pair["other"]).split()
            assert len(stranger) in (0, len(right) - 1)  # the last token of the other span is due after that
            if stranger:
                assert (stranger[0], len(stranger)) == (right[0], 2)  # of its kind: names behind descriptions
            if len(right) == 3 and right[0] == "Ada" and stranger:
                assert stranger[1] != right[1]
            seen.append(bool(stranger))
    assert sum(seen) / len(seen) == pytest.approx(0.7 * 5 / 6, abs=0.1)  # the right one is drawn once in six


@pytest.mark.parametrize("row_length", [None, 64])
def test_other_at_is_where_each_token_of_the_other_span_is_due(row_length):
    documents = _people(6)
    words = word_tokenizer([document["text"] for document in documents])
    rows = encode_dataset(Given(read_on=0.5, strangers=0.5).mark(documents), words, 64, SETS)
    sets = ("source_last", "target_ids", "before_target", "target_positions")
    batch = Collator(words.pad_token_id, sets, row_length=row_length)(list(rows))
    latent, ids, kinds = batch["latent"], batch["input_ids"], set()
    for r, g in (latent["source_last"][..., 0] >= 0).nonzero().tolist():
        due, right = latent["target_positions"][r, g], latent["target_ids"][r, g]
        due, right, end = due[due >= 0], right[right >= 0], int(latent["source_last"][r, g, 0])
        if (before := int(latent["before_target"][r, g, 0])) >= 0:
            assert due[0] == before
            assert ids[r, due + 1].tolist() == right.tolist()  # in the text the tokens themselves stand there
            kinds.add("in place")
            continue
        assert due[0] == end
        assert len(due) in (1, len(right))
        assert (latent["segments"][r, due] == latent["segments"][r, end]).all()
        assert (due.diff() == 1).all()
        last = int(due[-1]) + 1  # there the segment ends
        assert last == ids.shape[1] or latent["segments"][r, last] != latent["segments"][r, end]
        kinds.add(len(due) > 1)
    assert kinds == {"in place", True, False}


def test_only_the_spans_that_are_to_be_named_are_the_other():
    plain = encode_dataset(DOCUMENTS, TOKENIZER, 64, SETS)
    for number in (0, 1):
        rows = encode_dataset(Given(named=(number,)).mark(DOCUMENTS), TOKENIZER, 64, SETS)
        for row, both, document in zip(rows, plain, DOCUMENTS, strict=True):
            said = document["text"][slice(*document["spans"][number])]
            assert [TOKENIZER.decode(pair["other"]) for pair in row["pairs"]] == [said]
            assert row["pairs"][0] in both["pairs"]
    assert list(encode_dataset(Given(named=(0, 1)).mark(DOCUMENTS), TOKENIZER, 64, SETS)) == list(plain)
    with pytest.raises(ValueError, match="named \\[2\\], but documents have 2 spans; count from 0"):
        Given(named=(2,)).mark(DOCUMENTS)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"named": [-1]}, "the first one is 0"),
        ({"strangers": 2}, "strangers 2.0 is a share"),
        ({"crop": 1.2}, "crop 1.2 is a share"),
        ({"crop": 0.5, "read": "first"}, "crop is of spans that are read alone"),
        ({"read_on": -0.1}, "read_on -0.1 is a share"),
        ({"read_on": 0.5, "read": "in_place"}, "read_on is of spans that are read alone"),
    ],
)
def test_parts_that_cannot_be_are_refused(part, told):
    with pytest.raises(ConfigError, match=told):
        parse(Pairs, {"kind": "given", **part}, "pairs")


@pytest.mark.parametrize("layout", ["packed", "flat"])
def test_other_end_is_the_last_token_of_the_other_span_alone(layout):
    rows = list(encode_dataset(DOCUMENTS, TOKENIZER, 64, SETS))
    batch = Collator(TOKENIZER.pad_token_id, SETS, layout)(rows)
    latent, ids = batch["latent"], batch["input_ids"]
    seen = 0
    for r, g in (latent["target_last"][..., 0] >= 0).nonzero().tolist():
        end = int(latent["target_last"][r, g, 0])
        segment = latent["segments"][r]
        own = ids[r][segment == segment[end]]
        other = latent["target_ids"][r, g]
        assert own.tolist() == other[other >= 0].tolist()  # words: the same ids alone and in running text
        assert int((segment == segment[end]).nonzero()[-1]) == end
        assert segment[end] != segment[int(latent["source_last"][r, g, 0])]
        seen += 1
    assert seen == sum(len(row["pairs"]) for row in rows)
    assert torch.equal(latent["target_last"] >= 0, latent["source_last"] >= 0)


@pytest.mark.parametrize("layout", ["packed", "flat", "rows"])
@pytest.mark.parametrize("read", ["alone", "in_place"])
def test_the_other_span_begins_after_before_other_where_it_comes_later(layout, read):
    sets = ("source_last", "target_ids", "before_target")
    rows = list(encode_dataset(DOCUMENTS, TOKENIZER, 64, sets, read))
    batch = Collator(TOKENIZER.pad_token_id, sets, layout)(rows)
    latent, ids = batch["latent"], batch["input_ids"]
    there = latent["before_target"][..., 0] >= 0
    assert not (there & (latent["source_last"][..., 0] < 0)).any()
    for r, g in there.nonzero().tolist():
        before, end = int(latent["before_target"][r, g, 0]), int(latent["source_last"][r, g, 0])
        other = latent["target_ids"][r, g]
        other = other[other >= 0].tolist()
        assert ids[r, before + 1 : before + 1 + len(other)].tolist() == other
        assert end <= before  # the source has been read when the other one is asked for
        assert latent["segments"][r, end] == latent["segments"][r, before] == latent["segments"][r, before + 1]
    assert int(there.sum()) == len(rows)  # of the two pairs of a document one has its source first


def test_other_end_needs_both_spans_in_a_row():
    with pytest.raises(ValueError, match="use packed"):
        Collator(0, SETS, "rows")
