"""Spans of what is said stand, in the rendered conversation, on the same words."""

import pytest

from latentlm.data import Chunks, Document, encode, encode_dataset, word_tokenizer
from latentlm.data.text.chat_spans import render, rendered_spans
from latentlm.data.text.encoding_report import DocumentError

SAID = ["  who is user ?", "assistant is the\nuser", "user"]  # words of the template, blanks, line breaks
MESSAGES = [{"role": role, "content": said} for role, said in zip(("user", "assistant", "user"), SAID, strict=True)]
JOINED = "\n".join(SAID)
PLAIN = "{% for m in messages %}<{{ m.role }}> {{ m.content }} <eos>\n{% endfor %}"
STRIPS = "be kind\n{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}<eos>{% endfor %}<assistant>"


def _tokenizer(template):
    tokenizer = word_tokenizer([JOINED.replace("?", "") + " be kind"])
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("template", [PLAIN, STRIPS])
def test_every_word_is_found_where_it_stands(template):
    tokenizer = _tokenizer(template)
    text, spans, at = render(MESSAGES, tokenizer), [], 0
    for word in JOINED.split():
        start = JOINED.index(word, at)
        at = start + len(word)
        spans.append((start, at))
    found = rendered_spans(spans, MESSAGES, text, tokenizer)
    assert list(found) == list(range(len(spans)))
    moved = list(found.values())
    assert [text[start:end] for start, end in moved] == JOINED.split()
    assert moved == sorted(moved)
    # each in its own message: as many ends of turns before it as messages
    own = [number for number, said in enumerate(SAID) for _ in said.split()]
    assert [text[:start].count("<eos>") for start, _ in moved] == own


def test_a_span_across_messages_is_left_out_and_one_outside_refused():
    tokenizer = _tokenizer(PLAIN)
    text = render(MESSAGES, tokenizer)
    edge = len(SAID[0])
    assert rendered_spans([(edge - 2, edge + 3), (edge + 1, edge + 10)], MESSAGES, text, tokenizer) == {
        1: (text.index("assistant is"), text.index("assistant is") + 9)
    }
    for span in [(0, len(JOINED) + 1), (3, 3), (-1, 2)]:
        with pytest.raises(ValueError, match="is not inside the messages"):
            rendered_spans([span], MESSAGES, text, tokenizer)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content | upper }}<eos>{% endfor %}",
        "{% for m in messages[1:] %}{{ m.content }}<eos>{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ m.content }}<eos>{% endfor %}",
    ],
)
def test_a_template_that_rewrites_is_refused(template):
    tokenizer = _tokenizer(template)
    with pytest.raises(ValueError, match="does not write every message once and as it is"):
        rendered_spans([(2, 5)], MESSAGES, render(MESSAGES, tokenizer), tokenizer)
    document = Document(JOINED, [], messages=MESSAGES)
    options = {"loss_on": "all"}  # without spans and turns any template will do
    assert not encode(document, tokenizer, 64, ("source_last",), **options).span_pairs
    with pytest.raises(ValueError, match=r"turns are not found.*loss_on: all"):
        encode(document, tokenizer, 64)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content + 1 }}", "str"),
        ("{% for m in messages %}", "end of template"),
        ("{{ messages[0].absent.more }}", "absent"),
        ("{{ 1 / 0 }}", "division by zero"),
        ({"a": "x", "b": "y"}, "chat template"),  # several, of which none is the default
    ],
)
def test_a_template_that_raises_is_one_line(template, reason):
    with pytest.raises(DocumentError, match=f"the chat template refuses it .*{reason}") as told:
        render(MESSAGES, _tokenizer(template))
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 250


def test_one_conversation_that_the_template_refuses_does_not_stop_the_others(caplog):
    tokenizer = _tokenizer(
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
        "{{ m.content }} <eos>{% endfor %}"
    )
    good = Document(JOINED, messages=MESSAGES)
    bad = Document("user", messages=[{"role": "tool", "content": "user"}], origin="row 1")
    assert len(encode_dataset([good, bad, good], tokenizer, 64)) == 2
    assert "row 1: the chat template refuses it (no tools)" in caplog.text
    with pytest.raises(ValueError, match=r"none can be used: row 1: the chat template refuses it \(no tools\)"):
        encode_dataset([bad], tokenizer, 64)


def test_chunks_of_a_conversation_are_words_that_were_said():
    tokenizer = _tokenizer(PLAIN)
    document = Document(JOINED, [], messages=MESSAGES)
    found = 0
    for seed in range(40):
        marked = Chunks(shortest=1, longest=2, seed=seed).mark([document])
        if encode(marked[0], tokenizer, 64, ("source_last", "target_ids")).span_pairs:
            row = encode_dataset(marked, tokenizer, 64, ("source_last", "target_ids"))[0]
            for pair, (start, end) in zip(row["span_pairs"], reversed(marked[0].spans), strict=True):
                words = tokenizer(JOINED[start:end], add_special_tokens=False)["input_ids"]
                assert pair["target_ids"] == words
            found += 1
    assert found > 20
