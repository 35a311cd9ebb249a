"""Phrases that recur together are found in text that nobody marked, and what is not related is left alone."""

import random
from collections import Counter

import pytest

from latentlm.config.schema import ConfigError, parse
from latentlm.data import Document, Facts, Phrases, SpanPairs, encode_dataset, find_spans, word_tokenizer

DOCUMENTS = Facts(num_a_to_b=10, num_b_to_a=10, num_both=200, templates="compositional").documents()
ONE_WAY = Facts(num_a_to_b=120, num_b_to_a=120, num_both=0, templates="compositional").documents()
ARTICLE = len("the ")


def found(documents: list[Document], marked: list[Document]) -> float:
    """Share of the documents whose spans are all marked, a description with its article or without."""
    same = 0
    for document, other in zip(documents, marked, strict=True):
        starts = {end: start for start, end in other.spans}
        same += all(starts.get(end, -9) in (start, start + ARTICLE, start - ARTICLE) for start, end in document.spans)
    return same / len(documents)


def test_the_marked_spans_of_invented_facts_are_found_by_their_text_alone():
    bare = [Document(document.text) for document in DOCUMENTS]
    assert found(DOCUMENTS, Phrases(num=900).mark(bare)) > 0.75


def test_also_of_people_who_are_told_of_from_one_side_alone():
    # one of their phrases ends every sentence, and a suffix tree wants different words to follow
    assert found(ONE_WAY, Phrases(num=700).mark(ONE_WAY)) > 0.75


def test_without_facts_that_recur_nothing_is_related():
    # the same sentences, each with a partner drawn anew: the phrases are still there, what is told of them is not
    rng = random.Random(0)
    pairs = [sorted(document.spans) for document in DOCUMENTS]
    texts = []
    for document, (_, later) in zip(DOCUMENTS, pairs, strict=True):
        k = rng.randrange(len(DOCUMENTS))
        other = DOCUMENTS[k].text[slice(*pairs[k][1])]
        texts.append(Document(document.text[: later[0]] + other + document.text[later[1] :]))
    related = [document for document in Phrases(num=900).mark(texts) if document.spans]
    assert len(related) < 0.1 * len(texts)


def test_spans_are_phrases_of_whole_words_within_a_clause():
    for document in Phrases(num=900, longest=3).mark(DOCUMENTS):
        last = 0
        for start, end in document.spans:
            text = document.text
            assert last <= start < end <= len(text)
            assert 2 <= len(text[start:end].split()) <= 3
            assert not (text[start - 1 : start] + text[end : end + 1]).strip(" .,")
            assert not set(text[start:end]) & set(",.")
            last = end


@pytest.mark.slow
def test_the_same_in_every_process_and_whatever_the_case(monkeypatch):
    part = Phrases(num=900)
    alone = part.mark(DOCUMENTS)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert alone == part.mark(DOCUMENTS)
    upper = [Document(document.text.upper()) for document in DOCUMENTS]
    assert [document.spans for document in part.mark(upper)] == [document.spans for document in alone]


def test_a_phrase_of_the_language_is_no_name():
    def often(max_share: float) -> int:
        marked = Phrases(num=900, together=1, max_share=max_share).mark(DOCUMENTS)
        texts = [document.text[slice(*span)].lower() for document in marked for span in document.spans]
        return max(Counter(texts).values())

    assert often(1.0) > 0.02 * len(DOCUMENTS) >= often(0.02)


@pytest.mark.parametrize("texts", [["one"], ["", "..."], ["two words"] * 3])
def test_texts_without_related_phrases_are_refused(texts):
    with pytest.raises(ValueError, match=r"no two of them share 3 documents; raise data\.span_pairs\.num"):
        Phrases().mark([Document(text, [(0, 1)]) for text in texts])


def test_names_of_one_word_are_marked_if_wanted():
    def short(document: Document) -> Document:
        name = document.text[slice(*document.spans[0])]
        text = document.text.replace(name, name.split()[0] + name.split()[1].lower())
        return Document(text, find_spans(text, [name.replace(" ", ""), said(document, 1)]))

    def said(document: Document, number: int) -> str:
        return document.text[slice(*document.spans[number])]

    documents = [short(document) for document in DOCUMENTS]
    assert found(documents, Phrases(num=900, shortest=1).mark(documents)) > 0.75
    assert found(documents, Phrases(num=900).mark(documents)) < 0.1


def test_what_stands_in_one_document_is_not_all_related():
    rng = random.Random(1)
    long = [Document(" ".join(document.text for document in rng.sample(DOCUMENTS, 4))) for _ in range(1500)]
    marked = Phrases(num=900, max_share=0.05).mark(long)
    spans = sum(len(document.spans) for document in marked) / len(marked)
    related = sum(len(document.related) for document in marked) / len(marked)
    assert spans > 6  # of the 8 in four sentences
    assert related < 0.3 * spans * (spans - 1) / 2
    (row,) = encode_dataset(marked[:1], word_tokenizer([marked[0].text]), 64, ("source_last", "target_ids"))
    assert len(row["span_pairs"]) == 2 * len(marked[0].related) > 0


def test_they_go_on_to_pairs_of_tokens():
    marked = Phrases(num=900).mark(DOCUMENTS[:2000])
    rows = encode_dataset(marked, word_tokenizer([d.text for d in marked]), 64, ("source_last", "target_ids"))
    assert sum(len(row["span_pairs"]) for row in rows) >= 1000


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num": 0}, "num is 0"),
        ({"longest": 1}, "longest is 1"),
        ({"shortest": 5}, "longest is 4"),
        ({"together": 0}, "together"),
        ({"max_share": 0.0}, "max_share"),
    ],
)
def test_impossible_options_are_refused(options, told):
    with pytest.raises(ConfigError, match=told):
        parse(SpanPairs, {"kind": "phrases", **options}, "pairs")
