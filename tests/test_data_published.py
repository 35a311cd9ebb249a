"""Published questions and users' files: counts of the sources, and who is asked what."""

import json
import re
from collections import Counter

import pytest
from test_data_name_description import FOLDER

from latentlm.data import Instructions, NameDescription, ParentChild, ThinkingBias

ROOT = FOLDER.parent
published = pytest.mark.skipif(not FOLDER.is_dir(), reason="the published files are not here (LATENTLM_REVERSAL_DATA)")


@published
def test_thinking_bias_has_the_published_counts():
    part = ThinkingBias(str(ROOT / "thinking_bias"))
    items = part.items()
    counts = Counter((item.subset, item.split, item.asks) for item in items)
    groups = [("NameIsDescription", "same", "reverse"), ("DescriptionIsName", "reverse", "same")]
    assert counts == {
        (f"{group}_{form}", split, asks): number
        for group, *splits in groups
        for form, number in (("choice", 900), ("open", 120))
        for split, asks in zip(splits, ("description", "name"), strict=True)
    }
    assert len(part.documents()) == 1800
    listed = set((FOLDER / "names.txt").read_text().splitlines())
    assert {item.fact for item in items} <= listed
    assert len({item.fact for item in items}) == 60
    for item in items:
        assert len(item.choices) == (4 if item.subset.endswith("choice") else 0)
        assert not item.choices or item.answer in item.choices
        assert item.pool == "" or not item.choices


@published
def test_instructions_have_the_published_counts_and_two_orders():
    part = Instructions(str(ROOT / "instructions"))
    assert len(part.documents()) == 1307
    items = part.items()
    assert Counter(item.split for item in items) == {"reverse": 100, "both": 1000}
    held_out = {item.prompt for item in items if item.split == "reverse"}
    assert not any(prompt in document["text"] for prompt in held_out for document in part.documents())
    other = Instructions(str(ROOT / "instructions"), "question_first")
    stated = "\n".join(document["text"] for document in other.documents())
    assert len(re.findall(r'Answer "Q: .*?" with "A: .*?"', stated)) == 1100
    assert 'to answer "A:' not in stated
    assert Counter(item.split for item in other.items()) == {"same": 100, "both": 1000}


@published
def test_descriptions_are_ranked_in_the_prompts_own_wording():
    items = [item for item in NameDescription(str(FOLDER)).items() if item.asks == "description"]
    worded = [item for item in items if item.choices]
    assert len(worded) == 900
    assert all(item.split == "shortcut" for item in items if not item.choices)
    for item in worded:
        assert item.answer in item.choices
        assert len(item.choices) == 30  # one a fact: 300 answers in all wordings before
    by_pool = {item.pool: set() for item in worded}
    for item in worded:
        by_pool[item.pool].add((item.fact, item.choices.index(item.answer)))
    assert {len(pairs) for pairs in by_pool.values()} == {30}  # a fact keeps its column


ROWS = [
    {"child": f"Child {k}", "parent": f"Parent {k}", "parent_type": "mother" if k % 2 else "father"} for k in range(6)
]


def test_parents_and_children_come_from_a_file_of_ones_own(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    lines = ["child,parent,parent_type", *(",".join(row.values()) for row in ROWS)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    items = ParentChild(str(tmp_path / "pairs.jsonl")).items()
    assert items == ParentChild(str(tmp_path / "pairs.csv")).items()
    assert Counter(item.split for item in items) == {"same": 4, "reverse": 4}
    assert items[0].prompt.endswith("Q: Who is Child 2's father?\nA:")
    assert (items[1].prompt.split("\n")[-2:], items[1].answer) == (["Q: Name a child of Parent 2.", "A:"], " Child 2")
    assert not any("Child 0" in item.answer or "Child 1" in item.answer for item in items)
    with pytest.raises(ValueError, match="parent_child only asks"):
        ParentChild("pairs.csv").documents()


def test_a_file_that_cannot_be_read_says_where(tmp_path):
    path = tmp_path / "pairs.csv"
    with pytest.raises(ValueError, match=r"pairs\.csv is missing"):
        ParentChild(str(path)).items()
    path.write_text("child,parent\na,b\n")
    with pytest.raises(ValueError, match="line 2: not a JSON row with the strings child, parent and parent_type"):
        ParentChild(str(path)).items()
    path.write_text("child,parent,parent_type\na,b,mother\n")
    with pytest.raises(ValueError, match="has 1 rows; give 2 for the examples"):
        ParentChild(str(path)).items()
    (tmp_path / "people-description_open-QAs.jsonl").write_text("{}\nnot json\n")
    with pytest.raises(ValueError, match="line 1: not a JSON row"):
        ThinkingBias(str(tmp_path), ("open",)).items()
