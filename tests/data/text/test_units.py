"""Units are found in the tokens: sentences, paragraphs, lines, chunks, turns, columns."""

from copy import deepcopy

import pytest
from tiny_chats import CHATS, TEMPLATES, tokenizer
from tokenizers import Regex, normalizers

from latentlm.data import Chunk, Document, Pattern, Sentence, encode_dataset, finders
from latentlm.data.text.encode import Encoder
from latentlm.data.text.encoding_report import EncodingReport
from latentlm.data.text.units import STANDARD, find_units, token_text

TEXT = (
    'Dr. Smith went home at 3.5 miles. He said: "Hello." Then he slept!\n\n---\n\nA new one, e.g. this.\nA line more.'
)


def said(text, grain, rules=(), ids=None, known=None):
    """The texts of the units of a grain."""
    tok = tokenizer()
    ids = tok(text)["input_ids"] if ids is None else ids
    found = find_units(token_text(ids, tok, known), finders([grain], rules))[grain]
    return [tok.decode(ids[unit.first : unit.stop], skip_special_tokens=True).strip() for unit in found]


def test_sentences_by_rules_of_the_language():
    assert said(TEXT, "sentence") == [
        "Dr. Smith went home at 3.5 miles.",
        'He said: "Hello."',
        "Then he slept!",
        "A new one, e.g. this.",
        "A line more.",
    ]
    assert said("第一句。第二句。", "sentence", [Sentence("zh")]) == ["第一句。", "第二句。"]


def test_paragraphs_lines_and_the_whole():
    assert said(TEXT, "paragraph") == [TEXT.split("\n\n")[0], TEXT.split("\n\n")[2]]
    assert said(TEXT, "line") == [part for part in TEXT.split("\n") if part.strip("-")]
    assert said(TEXT, "document") == [TEXT]


STEPS = ["1. Add 3.14 and 2.\n1999 is not one.", "2) Halve it.\n\nIt is small.", "**Step 3:** Say so. See 4. below."]


@pytest.mark.parametrize(
    "forms",
    [
        STEPS,
        ["Step 1: One.", "step 2: Two."],
        ["## Step 1\nOne.", "## Step 2\nTwo."],
        ["  (1) One.", "  (2) Two."],
        ["- 1. One.", "- **2.** Two."],
    ],
    ids=["mixed", "step", "headings", "brackets", "bullets"],
)
def test_numbered_steps_end_before_the_next_and_the_last_at_an_empty_line(forms):
    text = "Let me think, in 2 steps.\n" + "\n".join(forms) + "\n\nThe answer is 2."
    assert said(text, "step") == [form.strip() for form in forms]
    assert said("In 1999. It was.\n1999. A year.\n3.5 miles", "step") == []


def test_a_pattern_of_ones_own():
    text = "# One\nA b.\n# Two\nC d.\n\nE f."
    assert said(text, "section", [Pattern("section", begins=r"(?m)^# ")]) == ["# One\nA b.", "# Two\nC d."]
    assert said(text, "part", [Pattern("part", between=r"(?m)^# .*\n")]) == ["A b.", "C d.\n\nE f."]
    assert said("No mark.", "section", [Pattern("section", begins="#")]) == []
    assert said("No mark.", "part", [Pattern("part", between="#")]) == ["No mark."]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "one of between and begins"),
        ({"between": "a", "begins": "b"}, "one of between and begins"),
        ({"begins": "(a"}, r"begins '\(a' is no regular expression"),
        ({"between": "a*"}, r"between 'a\*' matches the empty text"),
        ({"begins": ""}, "begins '' matches the empty text"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused(options, line):
    with pytest.raises(ValueError, match=line):
        Pattern("section", **options)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_chunks_are_runs_of_tokens_and_a_rest_is_none(size):
    tok = tokenizer()
    ids = [*tok(TEXT)["input_ids"], tok.eos_token_id]
    found = Chunk(size)(token_text(ids, tok))
    assert [unit.stop - unit.first for unit in found] == [size] * ((len(ids) - 1) // size)
    assert [unit.first for unit in found] == list(range(0, size * len(found), size))


def test_every_token_of_a_text_is_in_one_sentence_or_none():
    tok = tokenizer()
    ids = tok(TEXT)["input_ids"]
    tokens = token_text(ids, tok)
    assert tokens.text == tok.decode(ids)
    units = STANDARD["sentence"](tokens)
    owners = [sum(unit.first <= k < unit.stop for unit in units) for k in range(len(ids))]
    assert max(owners) == 1
    outside = "".join(tok.decode([ids[k]]) for k, owned in enumerate(owners) if not owned)
    assert not any(map(str.isalnum, outside))


def test_a_character_of_several_tokens_is_of_all_of_them():
    tok = tokenizer()
    ids = tok("ab 漢 cd")["input_ids"]
    tokens = token_text(ids, tok)
    assert tokens.text == "ab 漢 cd"
    of_it = [k for k, (start, end) in enumerate(tokens.offsets) if tokens.text[start:end].strip() == "漢"]
    assert len(of_it) == 3
    assert said("漢 cd", "document") == ["漢 cd"]


def test_in_a_conversation_sentences_stop_at_the_turns():
    tok = tokenizer()
    example = Encoder(tok, 256, grains=finders(["sentence", "turn"]))(
        Document("", messages=CHATS[0]), EncodingReport()
    )[0]
    texts = {
        grain: [tok.decode(example.input_ids[first:stop]).strip() for first, stop, _ in units]
        for grain, units in example.units.items()
    }
    assert texts["turn"] == [message["content"] for message in CHATS[0]]
    assert texts["sentence"] == ["What is two?", "Tell me.", "It is two.", "That was easy.", "And three?", "Three."]
    assert [role for _, _, role in example.units["turn"]] == [1, 2, 1, 2]
    assert [role for _, _, role in example.units["sentence"]] == [1, 1, 2, 2, 1, 2]


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_a_tokenizer_that_forgets_line_breaks_has_the_same_units(template):
    first, second = "One two. Three!\n\nFour five.", "1. Six.\n2. Seven."
    messages = [{"role": "user", "content": first}, {"role": "assistant", "content": second}]
    documents = [Document(first), Document(second), Document("", messages=messages)]
    how = finders(["line", "step", "sentence", "paragraph"])
    units = []
    for forgets in (False, True):
        tok = deepcopy(tokenizer(template))
        if forgets:
            tok.backend_tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
            assert "\n" not in tok.decode(tok(first)["input_ids"])
        made = [Encoder(tok, 256, grains=how)(document, EncodingReport())[0] for document in documents]
        units.append(
            [
                {
                    grain: [tok.decode(each.input_ids[a:b]).split() for a, b, _ in found]
                    for grain, found in each.units.items()
                }
                for each in made
            ]
        )
    assert units[0] == units[1]
    assert [len(units[0][2][grain]) for grain in how] == [4, 2, 5, 3]


def test_a_unit_that_max_length_cuts_is_left_out_and_counted(caplog):
    document = Document("One two three. Four five six. Seven eight nine.")
    tok = tokenizer()
    length = len(tok(document.text)["input_ids"]) + 1
    for most in range(16, length):
        caplog.clear()
        dataset = encode_dataset([document] * 2, tok, most, grains=finders(["sentence"]))
        kept = [tok.decode(row["input_ids"][a:b]).strip() for row in dataset for a, b, _ in row["units"]["sentence"]]
        assert set(kept) <= {"One two three.", "Four five six.", "Seven eight nine."}
        if len(kept) < 6:
            assert f"{6 - len(kept)} of 6 units 'sentence' left out because max_length={most} cuts them" in caplog.text
        if len(kept) == 2:
            break


@pytest.mark.parametrize(
    ("grain", "line"),
    [
        ("turn", "no document has a turn; they are marked by conversations"),
        ("column", "no document has a column; they are marked by columns text_a"),
        ("step", "no document has a step; they are marked by numbers at the start of lines"),
        ("span", "no document has a span; they are marked by a column spans"),
    ],
)
def test_a_grain_that_no_document_has_is_refused(grain, line):
    with pytest.raises(ValueError, match=line):
        encode_dataset([Document("One two. Three.")], tokenizer(), 64, grains=finders([grain]))


def test_spans_of_the_data_are_units_in_their_order():
    document = Document("The Quiet Lantern is Vela Dorn.", spans=[(21, 30), (4, 17)])
    tok = tokenizer()
    row = encode_dataset([document], tok, 64, grains=finders(["span"]))[0]
    texts = [tok.decode(row["input_ids"][first:stop]).strip() for first, stop, _ in row["units"]["span"]]
    assert texts == ["Quiet Lantern", "Vela Dorn"]
