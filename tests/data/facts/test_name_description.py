"""The published data: every document has both spans, every prompt is a known person's."""

import json
from collections import Counter

import pytest
from paths import PUBLISHED, published

from latentlm.data.published.name_description import NameDescription
from latentlm.data.text.encode import encode_dataset
from latentlm.data.text.tokenizers import bpe_tokenizer


@published
def test_all_documents_have_both_spans_of_listed_people():
    documents = NameDescription(str(PUBLISHED)).documents()
    names = set((PUBLISHED / "names.txt").read_text().splitlines())
    # a span ends with its last word: a closing mark would be one token with the comma behind it
    descriptions = [line.lower().rstrip(' ."') for line in (PUBLISHED / "descriptions.txt").read_text().splitlines()]
    rows = [json.loads(line) for line in (PUBLISHED / "all_prompts_train.jsonl").read_text().splitlines()]
    assert Counter(d.text for d in documents) == Counter(row["prompt"] + row["completion"] for row in rows)
    assert len(documents) == 3600
    literal = 0
    for document in documents:
        (a, b), (c, d) = document.spans
        text = document.text
        assert text[a:b] in names
        assert b <= c or d <= a
        assert d - c >= 20
        assert text[c].isalnum() or text[c] == '"'
        assert text[d - 1].isalnum()
        literal += text[c:d].lower() in descriptions
    assert literal == 3223  # 3216 with their closing marks


@published
def test_one_way_people_are_told_one_way():
    sides = {}
    for subset in ("name_to_description", "description_to_name", "both"):
        documents = NameDescription(str(PUBLISHED), subsets=(subset,)).documents()
        sides[subset] = Counter(document.spans[0] < document.spans[1] for document in documents)
    assert sides["name_to_description"] == {True: 900}
    assert sides["description_to_name"] == {False: 900}
    assert sides["both"] == {True: 900, False: 900}


@published
def test_items_are_the_published_prompts_of_known_facts():
    part = NameDescription(str(PUBLISHED))
    questions = part.questions()
    counts = Counter((question.subset, question.split, question.answer_type) for question in questions)
    assert counts == dict.fromkeys(
        [
            ("name_to_description", "same", "description"),
            ("name_to_description", "reverse", "name"),
            ("name_to_description", "shortcut", "name"),
            ("description_to_name", "same", "name"),
            ("description_to_name", "reverse", "description"),
            ("description_to_name", "shortcut", "description"),
            ("both", "both", "description"),
            ("both", "both", "name"),
        ],
        300,
    )
    listed = set((PUBLISHED / "descriptions.txt").read_text().splitlines())
    names = set((PUBLISHED / "names.txt").read_text().splitlines())
    facts = {tuple(question.fact.split(" | ")) for question in questions}
    assert len(facts) == 90
    assert {name for name, _ in facts} <= names
    assert {description for _, description in facts} <= listed
    trained = "\n".join(document.text for document in part.documents())
    for question in questions:
        name, description = question.fact.split(" | ")
        assert question.prompt not in trained
        assert (name in question.prompt) == (question.answer_type == "description")
        if question.split == "shortcut":
            assert question.answer == f" {name if question.answer_type == 'description' else description}"
        elif question.answer_type == "name":
            assert question.answer == f" {name}"
        assert question.pool.startswith(f"{question.subset}/{question.answer_type}")


@published
def test_all_documents_encode():
    part = NameDescription(str(PUBLISHED))
    documents = part.documents()[::9]
    tokenizer = bpe_tokenizer([document.text for document in documents], 2000)
    data = encode_dataset(documents, tokenizer, 128, part.sets)
    assert {len(pairs) for pairs in data["span_pairs"]} == {2}
    assert {sum(not pair["isolated_source"] for pair in pairs) for pairs in data["span_pairs"]} == {1}


def _write(folder, train, test):
    for name, rows in (("both_prompts_train.jsonl", train), ("both_prompts_test.jsonl", test)):
        (folder / name).write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return NameDescription(str(folder), subsets=("both",))


TEST = [
    {"prompt": "Once Vela Dorn was", "completion": " the finder of the lost bell."},
    {"prompt": "The finder of the lost bell was", "completion": " Vela Dorn for years."},
]


def test_reworded_descriptions_are_found_by_completion_or_frame(tmp_path):
    train = [
        {"prompt": "Known for being the finder of the lost bell, it is", "completion": " Vela Dorn."},
        {"prompt": "Known for finding the lost bell, it is", "completion": " Vela Dorn."},
        {"prompt": "Vela Dorn", "completion": " found the lost bell."},
    ]
    documents = _write(tmp_path, train, TEST).documents()
    spans = [[d.text[slice(*span)] for span in d.spans] for d in documents]
    assert spans == [
        ["Vela Dorn", "the finder of the lost bell"],
        ["Vela Dorn", "finding the lost bell"],
        ["Vela Dorn", "found the lost bell"],
    ]


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("not json\n", "line 1: not a JSON row with the strings prompt and completion"),
        ({"prompt": "only"}, "line 1: not a JSON row"),
        ({"prompt": "It is the finder of the lost bell,", "completion": " Nobody."}, "0 known names in the row 'It is"),
        ({"prompt": "He who rang, it is", "completion": " Vela Dorn."}, "no description of Vela Dorn in the document"),
    ],
)
def test_unusable_rows_are_named(tmp_path, row, line):
    with pytest.raises(ValueError, match=line):
        _write(tmp_path, [row], TEST).documents()


def test_missing_folder_file_and_subset_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"^folder: .* is not a folder"):
        NameDescription(str(tmp_path / "none")).documents()
    with pytest.raises(ValueError, match=r"^folder: p2d_prompts_train.jsonl is missing in"):
        NameDescription(str(tmp_path)).documents()
    with pytest.raises(ValueError, match=r"^subsets: "):
        NameDescription(subsets=())


def test_an_unreachable_hub_is_named(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(ValueError, match=r"^hub: cannot fetch lberglund/reversal_curse.* set folder"):
        NameDescription().documents()
