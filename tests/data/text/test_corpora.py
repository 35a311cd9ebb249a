"""Texts and conversations from files: each format reads the same, each mistake is one line."""

import json

import datasets
import pytest

from latentlm.data.text.corpora import Corpus
from latentlm.data.text.encode import SETS, encode_dataset
from latentlm.data.text.tokenizers import bpe_tokenizer

TEXTS = ["one two", "three, four", "five"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def _write(folder, suffix):
    path = folder / f"texts{suffix}"
    data = datasets.Dataset.from_dict({"text": TEXTS})
    if suffix == ".jsonl":
        data.to_json(path)
    elif suffix == ".json":
        path.write_text(json.dumps([{"text": text} for text in TEXTS]))
    elif suffix == ".parquet":
        data.to_parquet(path)
    elif suffix == ".csv":
        data.to_csv(path)
    else:
        path.write_text("\n\n".join(TEXTS) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".csv", ".txt"])
def test_every_format_gives_the_same_documents(tmp_path, suffix):
    part = Corpus(str(_write(tmp_path, suffix)))
    assert part.documents() == [{"text": text, "spans": []} for text in TEXTS]
    assert part.items() == []


def test_folders_prompts_limits_and_slices(tmp_path):
    rows = [{"prompt": "a", "completion": " b"}, {"prompt": "c", "completion": " d"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [d["text"] for d in Corpus(str(tmp_path)).documents()] == ["a b", "c d"]
    assert [d["text"] for d in Corpus(str(tmp_path), max_documents=1).documents()] == ["a b"]
    assert [d["text"] for d in Corpus(str(tmp_path / "train.jsonl"), split="train[1:]").documents()] == ["c d"]


def test_spans_pass_through(tmp_path):
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps({"text": "A is B.\n", "spans": [[0, 1], [5, 6]]}))
    part = Corpus(str(path))
    assert part.documents() == [{"text": "A is B.\n", "spans": [[0, 1], [5, 6]]}]
    assert part.sets == SETS


def test_conversations_win_over_what_they_say_as_one_text(tmp_path):
    messages = [{"role": "user", "content": "who"}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "who", "spans": [], "messages": messages}))
    assert Corpus(str(tmp_path / "a.jsonl")).documents() == [{"text": "who", "spans": [], "messages": messages}]


def test_conversations_are_rendered_by_the_tokenizer(tmp_path):
    messages = [{"role": "user", "content": "who"}, {"role": "assistant", "content": "me"}]
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": messages}))
    documents = Corpus(str(path)).documents()
    assert documents == [{"text": "who\nme", "spans": [], "messages": messages}]
    tokenizer = bpe_tokenizer(["who me"], 300)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<eos>\n{% endfor %}"
    ids = encode_dataset(documents, tokenizer, 64)[0]["input_ids"]
    assert ids == tokenizer.apply_chat_template(messages, return_dict=False)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.pdf", "x", "cannot read .pdf"),
        ("a.jsonl", "not json", "check its format"),
        ("a.jsonl", "", "no rows"),
        ("a.jsonl", '{"body": "x"}', r"has the columns \['body'\]; add or rename prompt, completion"),
        ("a.jsonl", '{"text": 3}', "row 0 of .* has no string"),
        ("a.jsonl", '{"text": "\\n"}', "are blank"),
    ],
)
def test_unusable_files_are_named(tmp_path, name, content, line):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=line) as error:
        Corpus(str(tmp_path / name)).documents()
    assert str(error.value).startswith("source: ")
    assert "\n" not in str(error.value)


def test_wrong_arguments_are_named(tmp_path):
    path = _write(tmp_path, ".jsonl")
    with pytest.raises(ValueError, match="there is no file or folder"):
        Corpus(str(tmp_path / "none.jsonl")).documents()
    with pytest.raises(ValueError, match=r"^source: cannot read split test"):
        Corpus(str(path), split="test").documents()
    with pytest.raises(ValueError, match=r"^max_documents: 0"):
        Corpus(str(path), max_documents=0)
    (tmp_path / "chat.jsonl").write_text('{"messages": [{"role": "user", "content": null}]}')
    with pytest.raises(ValueError, match="messages need strings role and content"):
        Corpus(str(tmp_path / "chat.jsonl")).documents()
