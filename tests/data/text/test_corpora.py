"""Texts and conversations from files: each format reads the same, each mistake is one line."""

import json

import datasets
import pytest

from latentlm.data.documents import Document
from latentlm.data.text.corpora import Corpus
from latentlm.data.text.encode import encode_dataset
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


def written(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".csv", ".txt"])
def test_every_format_gives_the_same_documents(tmp_path, suffix):
    part = Corpus(str(_write(tmp_path, suffix)))
    assert part.documents() == [Document(text) for text in TEXTS]
    assert part.questions() == []


def test_folders_prompts_limits_and_slices(tmp_path):
    rows = [{"prompt": "a", "completion": " b"}, {"prompt": "c", "completion": " d"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [d.text for d in Corpus(str(tmp_path)).documents()] == ["a b", "c d"]
    assert [d.text for d in Corpus(str(tmp_path), max_documents=1).documents()] == ["a b"]
    assert [d.text for d in Corpus(str(tmp_path / "train.jsonl"), split="train[1:]").documents()] == ["c d"]


def test_spans_pass_through(tmp_path):
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps({"text": "A is B.\n", "spans": [[0, 1], [5, 6]]}))
    assert Corpus(str(path)).documents() == [Document("A is B.\n", [(0, 1), (5, 6)])]


def test_conversations_are_rendered_by_the_tokenizer(tmp_path):
    messages = [{"role": "user", "content": "who"}, {"role": "assistant", "content": "me"}]
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": messages}))
    documents = Corpus(str(path)).documents()
    assert documents == [Document("who\nme", messages=messages)]
    tokenizer = bpe_tokenizer(["who me"], 300)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<eos>\n{% endfor %}"
    ids = encode_dataset(documents, tokenizer, 64)[0]["input_ids"]
    assert ids == tokenizer.apply_chat_template(messages, return_dict=False)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.pdf", "x", "cannot read .pdf"),
        ("a.jsonl", "not json", "check its format"),
        ("a.jsonl", "", "it is empty"),
        ("a.txt", " \n\n", "it is empty|are blank"),
        (
            "a.jsonl",
            '{"body": "x"}',
            "has the columns body; rename one to text .plain text. or messages .conversations., or two to prompt and",
        ),
        ("a.jsonl", '{"text": 3}', "no row of .* can be used: row 0: text is not a string"),
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
    with pytest.raises(
        ValueError, match=r"no row of .* can be used: row 0: messages must be a list with strings role and content"
    ):
        Corpus(str(tmp_path / "chat.jsonl")).documents()


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".txt"])
def test_a_byte_order_mark_is_not_text(tmp_path, suffix):
    path = _write(tmp_path, suffix)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert Corpus(str(path)).documents() == [Document(text) for text in TEXTS]
    path.write_bytes("a".encode("utf-16"))
    with pytest.raises(ValueError, match="it is UTF-16; save it as UTF-8"):
        Corpus(str(path)).documents()


@pytest.mark.parametrize("name", ["a[1].txt", "*.txt", "a?.txt", "x.TXT"])
def test_a_path_is_not_a_pattern(tmp_path, monkeypatch, name):
    folder = tmp_path / "in [1]"
    folder.mkdir()
    for other in ("a1.txt", "ab.txt"):
        (folder / other).write_text("the wrong file\n")
    (folder / name).write_text("the file that was named\n")
    assert Corpus(str(folder / name)).documents() == [Document("the file that was named")]
    monkeypatch.chdir(folder)
    assert Corpus(name).documents() == [Document("the file that was named")]
    with pytest.raises(ValueError, match="has one of"):
        Corpus(str(folder)).documents()


def test_rows_that_cannot_be_used_are_left_out_counted_and_named(tmp_path, caplog):
    rows = [{"messages": [{"role": "user", "content": "who"}]}, {"messages": []}, {"messages": None}]
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, [*rows, rows[0]])))
    assert len(Corpus(str(tmp_path / "chat.jsonl")).documents()) == 2
    (line,) = [record.getMessage() for record in caplog.records]
    assert "2 of 4 rows of" in line
    assert "row 1: messages must be" in line


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(ValueError, match="line 2 is not UTF-8 text; save it as UTF-8"):
        Corpus(str(tmp_path / "a.txt")).documents()


def test_columns_that_stand_side_by_side_are_units(tmp_path):
    rows = [{"text_a": "Ein Satz.", "text_b": "A sentence."}, {"text_a": "Zwei.", "text_b": "Two."}]
    documents = Corpus(written(tmp_path / "pairs.jsonl", rows)).documents()
    assert [document.text for document in documents] == ["Ein Satz.\nA sentence.", "Zwei.\nTwo."]
    for document in documents:
        first, second = document.units["column"]
        assert document.text[first[0] : first[1]] + "\n" + document.text[second[0] : second[1]] == document.text
    lists = Corpus(written(tmp_path / "lists.jsonl", [{"texts": ["one", "two", "three"]}])).documents()
    assert [lists[0].text[a:b] for a, b, _ in lists[0].units["column"]] == ["one", "two", "three"]
    with pytest.raises(ValueError, match="text 1 is blank"):
        Corpus(written(tmp_path / "blank.jsonl", [{"texts": ["one", " "]}])).documents()


def test_a_prompt_and_its_completion_are_turns(tmp_path, caplog):
    rows = [{"prompt": "Two plus two?", "completion": " Four."}, {"prompt": "x", "completion": " "}]
    documents = Corpus(written(tmp_path / "prompts.jsonl", rows)).documents()
    assert [unit for document in documents for unit in document.units["turn"]] == [
        (0, 13, "user"),
        (13, 19, "assistant"),
    ]
    assert "1 of 2 rows" in caplog.text
    assert "completion is blank" in caplog.text


def test_contents_of_messages_in_the_forms_of_today(tmp_path, caplog):
    call = {"type": "function", "function": {"name": "add", "arguments": "{}"}}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    rows = [{"messages": [{"role": "user", "content": parts}]}]
    rows.append({"messages": [{"role": "user", "content": [{"type": "image", "text": None}]}]})
    documents = Corpus(written(tmp_path / "parts.jsonl", rows)).documents()
    assert [document.messages[0]["content"] for document in documents] == ["ab"]
    assert "a part of type image; only text can be read" in caplog.text
    rows = [
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "4"}]},
        {"messages": [{"role": "user", "content": None}]},
    ]
    documents = Corpus(written(tmp_path / "calls.jsonl", rows)).documents()
    assert documents[0].messages[0]["content"] == ""
    assert documents[0].messages[0]["tool_calls"][0]["function"]["name"] == "add"
    assert documents[0].messages[1].keys() == {"role", "content"}
    assert len(documents) == 1
    assert "1 of 2 rows" in caplog.text
