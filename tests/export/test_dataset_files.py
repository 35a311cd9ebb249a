"""Training texts and questions written to files are those of the data."""

import json
from pathlib import Path

import pytest

from latentlm.data import Chain, Corpus, Facts, Images, ParentChild, Question, StarGraph
from latentlm.data.images import Scenes
from latentlm.export.dataset_files import write_texts

DATA = [Facts(4, 4, 4), Chain(10, 5, seed=3), StarGraph(num_graphs=20, num_tests=5)]


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _question(row: dict) -> Question:
    return Question(**{key: tuple(value) if isinstance(value, list) else value for key, value in row.items()})


@pytest.mark.parametrize("data", DATA, ids=lambda data: type(data).__name__)
def test_what_is_written_reads_back_equal(tmp_path, data):
    train, test = tmp_path / "new" / "set" / "train.jsonl", tmp_path / "new" / "set" / "test.jsonl"
    assert write_texts(data, train.parent) == {train: len(data.documents()), test: len(data.questions())}
    assert _rows(train) == [document.to_row() for document in data.documents()]
    assert Corpus(str(train)).documents() == data.documents()
    assert [_question(row) for row in _rows(test)] == data.questions()


def test_conversations_keep_their_messages_and_have_no_test_file(tmp_path):
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "Où?\n\nHier."}]}) + "\n")
    data = Corpus(str(tmp_path / "chat.jsonl"))
    (tmp_path / "out").mkdir()  # an empty folder is a new one
    assert write_texts(data, tmp_path / "out") == {tmp_path / "out" / "train.jsonl": 1}
    assert _rows(tmp_path / "out" / "train.jsonl") == [document.to_row() for document in data.documents()]


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for taken in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(ValueError, match="is not empty; name a new folder"):
            write_texts(Chain(10, 5), taken)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_data_without_texts_leave_no_folder(tmp_path):
    with pytest.raises(ValueError, match="images have no texts; name a recipe that trains on text"):
        write_texts(Images(Scenes()), tmp_path / "out")
    with pytest.raises(ValueError, match="parent_child only asks"):
        write_texts(ParentChild("pairs.csv"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
