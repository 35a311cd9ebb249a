"""Published questions and users' files: counts of the sources, and who is asked what."""

import json
import re
from collections import Counter

import pytest
from paths import PUBLISHED, published

from latentlm.data import Instructions, NameDescription, ParentChild, ThinkingBias

ROOT = PUBLISHED.parent


@published
def test_thinking_bias_has_the_published_counts():
    part = ThinkingBias(str(ROOT / "thinking_bias"))
    questions = part.questions()
    counts = Counter((question.subset, question.split, question.answer_type) for question in questions)
    groups = [("NameIsDescription", "same", "reverse"), ("DescriptionIsName", "reverse", "same")]
    assert counts == {
        (f"{group}_{form}", split, answer_type): number
        for group, *splits in groups
        for form, number in (("choice", 900), ("open", 120))
        for split, answer_type in zip(splits, ("description", "name"), strict=True)
    }
    assert len(part.documents()) == 1800
    listed = set((PUBLISHED / "names.txt").read_text().splitlines())
    assert {question.fact for question in questions} <= listed
    assert len({question.fact for question in questions}) == 60
    for question in questions:
        assert len(question.choices) == (4 if question.subset.endswith("choice") else 0)
        assert not question.choices or question.answer in question.choices
        assert question.pool == "" or not question.choices


@pytest.mark.slow
@published
def test_instructions_have_the_published_counts_and_two_orders():
    part = Instructions(str(ROOT / "instructions"))
    assert len(part.documents()) == 1307
    questions = part.questions()
    assert Counter(question.split for question in questions) == {"reverse": 100, "both": 1000}
    held_out = {question.prompt for question in questions if question.split == "reverse"}
    assert not any(prompt in document.text for prompt in held_out for document in part.documents())
    other = Instructions(str(ROOT / "instructions"), "question_first")
    stated = "\n".join(document.text for document in other.documents())
    assert len(re.findall(r'Answer "Q: .*?" with "A: .*?"', stated)) == 1100
    assert 'to answer "A:' not in stated
    assert Counter(question.split for question in other.questions()) == {"same": 100, "both": 1000}


@published
def test_descriptions_are_ranked_in_the_prompts_own_wording():
    questions = [
        question for question in NameDescription(str(PUBLISHED)).questions() if question.answer_type == "description"
    ]
    worded = [question for question in questions if question.choices]
    assert len(worded) == 900
    assert all(question.split == "shortcut" for question in questions if not question.choices)
    for question in worded:
        assert question.answer in question.choices
        assert len(question.choices) == 30  # one a fact: 300 answers in all wordings before
    by_pool = {question.pool: set() for question in worded}
    for question in worded:
        by_pool[question.pool].add((question.fact, question.choices.index(question.answer)))
    assert {len(pairs) for pairs in by_pool.values()} == {30}  # a fact keeps its column


ROWS = [
    {"child": f"Child {k}", "parent": f"Parent {k}", "parent_type": "mother" if k % 2 else "father"} for k in range(6)
]


def test_parents_and_children_come_from_a_file_of_ones_own(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    questions = ParentChild(str(tmp_path / "pairs.jsonl")).questions()
    lines = ["child,parent,parent_type", *(",".join(row.values()) for row in ROWS)]
    for mark in ("", "\ufeff"):  # spreadsheets begin a file with a mark
        (tmp_path / "pairs.csv").write_text(mark + "\n".join(lines), encoding="utf-8")
        assert ParentChild(str(tmp_path / "pairs.csv")).questions() == questions
    assert Counter(question.split for question in questions) == {"same": 4, "reverse": 4}
    assert questions[0].prompt.endswith("Q: Who is Child 2's father?\nA:")
    assert (questions[1].prompt.split("\n")[-2:], questions[1].answer) == (
        ["Q: Name a child of Parent 2.", "A:"],
        " Child 2",
    )
    assert not any("Child 0" in question.answer or "Child 1" in question.answer for question in questions)
    with pytest.raises(ValueError, match="parent_child only asks"):
        ParentChild("pairs.csv").documents()


def _asked(tmp_path, pairs):
    lines = ["child,parent,parent_type", "X,Y,mother", "V,W,father", *pairs]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    return ParentChild(str(tmp_path / "pairs.csv")).questions()


def test_brothers_and_sisters_are_right_and_never_rank_as_wrong(tmp_path):
    pairs = ["Eve,Flo C,mother", "Eve,Gus C,father", "Gil,Flo C,mother", "Gil,Gus C,father", "Gil,Flo C,mother"]
    pairs += ["Hal,Flo C,mother", "Ida,Jo D,mother", "Hal,Kim E,father", "Lea,Kim E,father", "Zed,Y,mother"]
    questions = _asked(tmp_path, pairs)
    children = {
        "Flo C": [" Eve", " Gil", " Hal"],
        "Gus C": [" Eve", " Gil"],
        "Jo D": [" Ida"],
        "Kim E": [" Hal", " Lea"],
    }
    asked = [question for question in questions if question.split == "reverse"]
    parents = [re.search(r"Name a child of ([^.]+)\.\nA:$", question.prompt)[1] for question in asked]
    assert {who: [question.answer, *question.aliases] for who, question in zip(parents, asked, strict=True)} == children
    assert len(parents) == len(set(parents)) == 4  # Y is in the examples, with her other child
    for question in asked:
        wrong = {other.answer for other in asked if other.pool == question.pool} - {question.answer}
        assert not wrong & set(question.aliases)
    assert Counter(question.pool for question in asked) == {
        "parent_child/child": 3,
        "parent_child/child/2": 1,
    }  # Hal is Flo's
    assert len([question for question in questions if question.split == "same"]) == 9  # every child and kind once


def test_a_file_that_cannot_be_read_says_where(tmp_path):
    path = tmp_path / "pairs.csv"
    with pytest.raises(ValueError, match=r"^file: there is no file .*pairs\.csv; check the path"):
        ParentChild(str(path)).questions()
    columns, few = "child,parent,parent_type\n", "a,b,mother\n" * 3
    for text, line in (
        ("child,parent\na,b\n", r"line 1: has the columns child \| parent; name child, parent and parent_type there"),
        ("child;parent;parent_type\na;b;mother\n", "line 1: has the columns child;parent;parent_type; name .* commas"),
        ("", "line 1: has the columns ; name child"),
        (f"{columns}a,b,mother\na,b\n", "line 3: not 3 values with commas between"),
        (f"{columns}a,b, Jr.,mother\n", "line 2: not 3 values with commas between; quote names with a comma"),
        (f"{columns}a,b,mother\n", "has 1 rows; give 2 for the examples"),
        (f"{columns}{few}a, ,mother\n", "has no parent in pair 4; fill it in"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=line) as caught:
            ParentChild(str(path)).questions()
        assert "pairs.csv" in str(caught.value)
    (tmp_path / "people-description_open-QAs.jsonl").write_text("{}\nnot json\n")
    with pytest.raises(ValueError, match="line 1: not a JSON row"):
        ThinkingBias(str(tmp_path), ("open",)).questions()


def _lay_out(root, files):
    for name, rows in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows)))


ASKED = [{"prompt": "Q: Where? A:", "completion": " Here\n"}]
INSTRUCTIONS = {
    "guidances.jsonl": [{"prompt": "", "completion": 'Say "A: Here" after "Q: Where?"'}],
    "realized_examples.jsonl": ASKED,
    "unrealized_examples.jsonl": ASKED,
}
PEOPLE = {
    "data/training_data/people-description.json": [{"text": "Ann Ash is the finder."}],
    "data/test_data/people-description_open-QAs.jsonl": [
        {"group": "NameIsDescription", "task": "D2N", "question": "Who is the finder?", "answer": "Ann Ash"}
    ],
}
FETCHED = [
    (
        lambda **where: Instructions(**where),
        {f"instruction_dataset/{name}": rows for name, rows in INSTRUCTIONS.items()},
        INSTRUCTIONS,
        "instruction_dataset/*",
    ),
    (
        lambda **where: ThinkingBias(forms=("open",), **where),
        PEOPLE,
        {name.rpartition("/")[2]: rows for name, rows in PEOPLE.items()},
        "*people-description*",
    ),
]


@pytest.mark.parametrize(("part", "laid", "flat", "pattern"), FETCHED, ids=["instructions", "thinking_bias"])
def test_files_of_the_hub_a_copy_of_it_and_a_plain_folder_are_the_same(
    tmp_path, monkeypatch, part, laid, flat, pattern
):
    _lay_out(tmp_path / "hub", laid)
    _lay_out(tmp_path / "flat", flat)
    fetched = []

    def fetch(name, repo_type, allow_patterns):
        fetched.append((name, repo_type, allow_patterns))
        return str(tmp_path / "hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    sources = [part(hub="me/copy"), part(folder=str(tmp_path / "hub")), part(folder=str(tmp_path / "flat"))]
    assert len({str((source.documents(), source.questions())) for source in sources}) == 1
    assert set(fetched) == {("me/copy", "dataset", pattern)}
    with pytest.raises(ValueError, match=r"^folder: .*none is not a folder"):
        part(folder=str(tmp_path / "none")).documents()


def test_instructions_lie_on_the_hub_and_thinking_bias_must_be_named(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(ValueError, match=r"^hub: cannot fetch lberglund/reversal_curse.* set folder"):
        Instructions().documents()
    with pytest.raises(ValueError, match=r"^folder: give a clone of https://github.com/alibaba/thinking_bias"):
        ThinkingBias()
