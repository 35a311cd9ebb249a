"""Answers to test files: known answers and losses by a model set by hand, every kind of row, every error line."""

import json
import math
import sys

import pytest
import torch
from hand_set_models import bigram_model, chat_tokenizer, random_model
from latentlm_evals.answers import Options, evaluate, report_sections, run, table
from latentlm_evals.answers.rows import read_asked
from run_cli import latentlm

from latentlm.data import word_tokenizer
from latentlm.report.contract import EvaluatedRun
from latentlm.result import Result, TaskKey

WORDS = word_tokenizer(["red blue green one two three"])
NEXT = {"red": "one", "one": "two", "two": "<eos>", "blue": "three", "three": "<eos>", "green": "green"}
CHATS = [
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello you"}]},
    {
        "messages": [
            {"role": "system", "content": "be short"},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "first"},
            {"role": "user", "content": "two, please"},
            {"role": "assistant", "content": "second"},
        ]
    },
]


def counting_model():
    """Writes red -> one two, blue -> three, and green without end."""
    logits = torch.zeros(len(WORDS), len(WORDS))
    for before, after in NEXT.items():
        logits[WORDS.convert_tokens_to_ids(before), WORDS.convert_tokens_to_ids(after)] = 5.0
    return bigram_model(logits)


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def save(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


PAIRS = [
    {"prompt": "red ", "completion": "one two"},
    {"prompt": "red", "completion": " One,  two!"},
    {"prompt": "blue", "completion": " one"},
    {"prompt": "", "completion": "three"},
    {"prompt": "green", "completion": "green"},
]


def test_known_answers_and_losses(tmp_path):
    source = lines(tmp_path / "test.jsonl", PAIRS)
    result = evaluate(counting_model(), WORDS, Options(source=source, max_new_tokens=4))
    task = result.tasks[TaskKey("answers")]
    assert [sample["answer"] for sample in result.extra["samples"]] == [
        "one two", "one two", "three", "green green green green"
    ]  # fmt: skip
    assert task.value("exact") == 1 / 4
    assert task.value("normalized") == 2 / 4
    assert task.value("cut") == 1 / 4
    assert task.n_samples["original"] == 5
    assert task.n_samples["effective"] == 4
    assert "skipped: 1 of 5 rows: row 3: prompt is blank" in result.warnings
    hit = -math.log(math.exp(5) / (math.exp(5) + len(WORDS) - 1))
    miss = hit + 5
    # row 0: one, two, end. row 1: unknown words one, "One", ",", "two", "!": count those of the model's own logits
    first = [sample for sample in result.extra["samples"] if sample["row"] == 0]
    assert len(first) == 1
    single = evaluate(counting_model(), WORDS, Options(source=lines(tmp_path / "a.jsonl", PAIRS[:1])))
    assert single.tasks[TaskKey("answers")].value("nats_per_token") == pytest.approx(hit, rel=1e-5)
    assert single.tasks[TaskKey("answers")].value("bits_per_byte") == pytest.approx(3 * hit / 7 / math.log(2), rel=1e-5)
    wrong = evaluate(counting_model(), WORDS, Options(source=lines(tmp_path / "b.jsonl", PAIRS[2:3])))
    # "one" after blue misses, the end after one misses
    assert wrong.tasks[TaskKey("answers")].value("nats_per_token") == pytest.approx(miss, rel=1e-5)
    both = evaluate(counting_model(), WORDS, Options(source=lines(tmp_path / "c.jsonl", [PAIRS[0], PAIRS[2]])))
    whole = both.tasks[TaskKey("answers")]
    assert whole.value("nats_per_token") == pytest.approx((3 * hit + 2 * miss) / 5, rel=1e-5)
    low, high = whole.scores["nats_per_token"].interval
    assert low == pytest.approx(hit, rel=1e-5)
    assert high == pytest.approx(miss, rel=1e-5)


def test_a_text_ends_an_answer(tmp_path):
    source = lines(tmp_path / "test.jsonl", PAIRS[:1])
    result = evaluate(counting_model(), WORDS, Options(source=source, stop=("two",)))
    assert result.extra["samples"][0]["answer"] == "one "
    assert result.extra["samples"][0]["ended"]


def test_chats_are_asked_as_the_template_writes_them(tmp_path):
    tokenizer = chat_tokenizer([str(CHATS)])
    model = random_model(len(tokenizer))
    source = lines(tmp_path / "chats.jsonl", CHATS)
    last = evaluate(model, tokenizer, Options(source=source, max_new_tokens=6)).extra["samples"]
    assert [(sample["row"], sample["turn"], sample["gold"]) for sample in last] == [
        (0, 1, "hello you"),
        (1, 4, "second"),
    ]
    assert last[1]["prompt"] == (
        "<|im_start|>system\nbe short<|im_end|>\n<|im_start|>user\none<|im_end|>\n"
        "<|im_start|>assistant\nfirst<|im_end|>\n"
        "<|im_start|>user\ntwo, please<|im_end|>\n<|im_start|>assistant\n"
    )
    every = evaluate(model, tokenizer, Options(source=source, turns="all", max_new_tokens=6))
    assert [sample["turn"] for sample in every.extra["samples"]] == [1, 2, 4]
    assert every.tasks[TaskKey("answers")].n_samples["effective"] == 2
    pairs = [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in CHATS]
    same = evaluate(model, tokenizer, Options(source=lines(tmp_path / "pairs.jsonl", pairs), max_new_tokens=6))
    assert same.extra["samples"] == last
    parts = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in CHATS[0]["messages"]]
    split = lines(tmp_path / "split.jsonl", [{"messages": parts}])
    assert evaluate(model, tokenizer, Options(source=split, max_new_tokens=6)).extra["samples"] == last[:1]
    both = lines(tmp_path / "both.jsonl", [{"text_a": "hi", "text_b": "hello"}])
    (asked,) = evaluate(model, tokenizer, Options(source=both, max_new_tokens=2)).extra["samples"]
    assert (asked["prompt"], asked["gold"]) == ("hi\n", "hello")
    # the loss is that of the contents and the end of the turn, not of the line break after it
    tokens = [len(tokenizer(row["messages"][-1]["content"])["input_ids"]) + 1 for row in CHATS]
    assert same.tasks[TaskKey("answers")].n_samples["tokens"] == sum(tokens)


def test_an_answer_ends_with_its_turn(tmp_path):
    tokenizer = chat_tokenizer([str(CHATS)])
    end, yes = tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer("y")["input_ids"][0]
    logits = torch.zeros(len(tokenizer), len(tokenizer))
    logits[tokenizer("\n")["input_ids"][0], yes] = logits[yes, end] = 9.0
    model = bigram_model(logits)
    assert model.generation_config.eos_token_id != end
    result = evaluate(model, tokenizer, Options(source=lines(tmp_path / "c.jsonl", CHATS), max_new_tokens=20))
    assert {(sample["answer"], sample["ended"]) for sample in result.extra["samples"]} == {("y", True)}


@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "num_samples": 2}])
def test_batches_change_nothing(tmp_path, options):
    tokenizer = chat_tokenizer([str(CHATS)])
    model, source = random_model(len(tokenizer)), lines(tmp_path / "chats.jsonl", CHATS)
    shared = {"source": source, "turns": "all", "max_new_tokens": 5, **options}
    first, other = (evaluate(model, tokenizer, Options(batch_size=size, **shared)) for size in (1, 64))
    assert first.extra == other.extra
    scores = [result.tasks[TaskKey("answers")].scores for result in (first, other)]
    assert scores[0]["exact"] == scores[1]["exact"]
    assert scores[0]["nats_per_token"].value == pytest.approx(scores[1]["nats_per_token"].value, rel=1e-5)
    if options:
        again = evaluate(model, tokenizer, Options(seed=1, **shared))
        assert [s["answer"] for s in again.extra["samples"]] != [s["answer"] for s in first.extra["samples"]]
        assert len(first.extra["samples"]) == 6


def test_the_command_line_gives_what_python_gives(tmp_path):
    model, folder = counting_model(), tmp_path / "model"
    name, source = save(model, WORDS, folder), lines(tmp_path / "test.jsonl", PAIRS)
    text = tmp_path / "text.txt"
    text.write_text("red one two\nblue three\n")
    out, samples = tmp_path / "out.json", tmp_path / "samples.jsonl"
    words = [f"source={source}", f"text={text}", "max_new_tokens=4", f"out={out}", f"samples={samples}"]
    told = latentlm("eval", "answers", name, *words)
    assert told.code == 0, told.err
    assert "25.0" in told.out
    assert "skipped: 1 of 5 rows" in " ".join(told.out.split())  # a long path folds the line
    options = Options(source=source, text=str(text), max_new_tokens=4)
    own = evaluate(model, WORDS, options)
    written = Result.read(out)
    assert {str(key): task.scores for key, task in written.tasks.items()} == {
        str(key): task.scores for key, task in own.tasks.items()
    }
    assert written.to_lm_eval()["results"]["answers"]["exact,none"] == 0.25
    kept = [json.loads(line) for line in samples.read_text().splitlines()]
    assert kept == [{"task": "answers", **sample} for sample in own.extra["samples"]]
    from_python = run(name, options)
    assert from_python.tasks == own.tasks
    assert [view.title for view in table({"a": from_python})] == ["Answers, %", "Loss of text"]
    sections = report_sections([EvaluatedRun("a", 0, folder, from_python, False, "")])
    assert sections[0].headline["answers exact, %"][0].text == "25.0"


def test_the_loss_of_text_is_the_mean_over_its_tokens(tmp_path):
    tokenizer = chat_tokenizer(["some text to read"])
    model = random_model(len(tokenizer), positions=32, sharp=2.0)
    texts = ["some text to read", "x" * 100, "ä short one"]
    source = lines(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    task = evaluate(model, tokenizer, Options(text=source)).tasks[TaskKey("answers", ("text",))]
    rows = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
    assert task.n_samples["tokens"] == sum(len(row) - 1 for row in rows)
    assert task.n_samples["longer"] == 1
    first = [len(tokenizer.decode(row[:1]).encode()) for row in rows]  # nothing comes before it
    first[2] = 1  # half of a letter of two bytes
    assert task.n_samples["bytes"] == sum(len(text.encode()) for text in texts) - sum(first)
    total = task.value("bits_per_token") * task.n_samples["tokens"]
    assert task.value("bits_per_byte") == pytest.approx(total / task.n_samples["bytes"])
    assert task.value("nats_per_token") == pytest.approx(task.value("bits_per_token") * math.log(2))
    short = lines(tmp_path / "short.jsonl", [{"text": texts[0]}])
    one = evaluate(model, tokenizer, Options(text=short)).tasks[TaskKey("answers", ("text",))]
    with torch.no_grad():
        loss = model(torch.tensor([rows[0]]), labels=torch.tensor([rows[0]])).loss
    assert one.value("nats_per_token") == pytest.approx(loss.item(), rel=1e-5)
    words = evaluate(counting_model(), WORDS, Options(text=lines(tmp_path / "w.jsonl", [{"text": "red one"}])))
    assert "bits_per_byte" not in words.tasks[TaskKey("answers", ("text",))].scores
    assert any(line.startswith("no_bytes") for line in words.warnings)


def test_scorers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_scorer.py").write_text(
        "def length(answer, gold): return len(answer) - len(gold)\n"
        "def broken(answer, gold): return None\n"
        "def one(answer): return 1.0\n"
    )
    source = lines(tmp_path / "test.jsonl", [{"prompt": "red", "completion": "one (two|two)"}])
    options = {"source": source, "max_new_tokens": 4}
    result = evaluate(counting_model(), WORDS, Options(scorer="regex", **options))
    assert result.tasks[TaskKey("answers")].value("regex") == 1.0
    assert result.tasks[TaskKey("answers")].value("exact") == 0.0
    result = evaluate(counting_model(), WORDS, Options(scorer="my_scorer:length", **options))
    assert result.tasks[TaskKey("answers")].value("my_scorer:length") == len("one two") - len("one (two|two)")
    assert Result.from_lm_eval(result.to_lm_eval(), "x").tasks[TaskKey("answers")].has("my_scorer:length")
    for scorer, told in {
        "my_scorer:broken": "scorer: my_scorer:broken gave 'None' for row 0; return a finite number",
        "my_scorer:one": r"scorer: my_scorer:one does not take two texts; write def one\(answer, gold\)",
        "my_scorer:none": "scorer: my_scorer has no function none",
        "no_such_module:f": "scorer: module no_such_module cannot be imported",
        "levenshtein": "scorer: levenshtein is neither built in",
    }.items():
        with pytest.raises(ValueError, match=told):
            evaluate(counting_model(), WORDS, Options(scorer=scorer, **options))
    sys.modules.pop("my_scorer")


def test_what_is_told_of_regular_expressions(tmp_path):
    rows = [{"prompt": "red", "completion": gold} for gold in ("(one)&(two)", "(?=one) two", "one two")]
    source = lines(tmp_path / "test.jsonl", rows)
    plain = evaluate(counting_model(), WORDS, Options(source=source, scorer="regex", max_new_tokens=4))
    told = "\n".join(plain.warnings)
    assert "regex_operators: 1 of 3" in told
    assert "regex_undecided: 1 pairs" in told
    other = evaluate(counting_model(), WORDS, Options(source=source, scorer="regex_nl_rx", max_new_tokens=4))
    assert "regex_empty: 1 of 3" in "\n".join(other.warnings)


UNUSABLE = [
    ({"messages": [{"role": "assistant", "content": "first"}]}, "no assistant turn follows another message"),
    ({"messages": [{"role": "user", "content": "a"}]}, "no assistant turn follows another message"),
    ({"messages": []}, "messages must be a list of messages"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}, "has no text"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}, CHATS[0]["messages"][1]]}, "part of type image"),
    ({"messages": [{"role": "user", "content": "a" * 300}, CHATS[0]["messages"][1]]}, "the model has 256"),
]


@pytest.mark.parametrize(("row", "told"), UNUSABLE)
def test_rows_that_cannot_be_used_are_counted_and_named(tmp_path, row, told):
    tokenizer = chat_tokenizer([str(CHATS)])
    model = random_model(len(tokenizer))
    source = lines(tmp_path / "chats.jsonl", [CHATS[0], row])
    result = evaluate(model, tokenizer, Options(source=source, max_new_tokens=3))
    assert any(line.startswith("skipped: 1 of 2 rows: row 1: ") and told in line for line in result.warnings)
    alone = lines(tmp_path / "alone.jsonl", [row])
    folder = save(model, tokenizer, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()  # told before the model is loaded
    with pytest.raises(ValueError, match="source: none of 1 rows can be used: row 0: .*" + told):
        run(folder, Options(source=alone, max_new_tokens=3))


def test_mistakes_are_one_line(tmp_path):
    text = lines(tmp_path / "text.jsonl", [{"text": "a"}])
    with pytest.raises(ValueError, match=r"has the columns text; answers need messages, or prompt and completion"):
        read_asked(text, "last", None)
    with pytest.raises(ValueError, match=r"text: there is no file or folder .*gone\.jsonl"):
        evaluate(counting_model(), WORDS, Options(text=str(tmp_path / "gone.jsonl")))
    with pytest.raises(ValueError, match="source: its messages need a chat template"):
        evaluate(counting_model(), WORDS, Options(source=lines(tmp_path / "c.jsonl", CHATS)))
    with pytest.raises(ValueError, match="window: 65 is more than the 64 positions"):
        evaluate(counting_model(), WORDS, Options(text=text, window=65))
    for options, told in {
        (): "source: give a file of test rows",
        (("num_samples", 2),): "num_samples: without sampling all answers are the same",
        (("temperature", -1.0),): "temperature: -1.0; give 0",
        (("batch_size", 0),): "batch_size: 0 is too few",
        (("stop", ("",)),): "stop: an empty text",
    }.items():
        with pytest.raises(ValueError, match=told):
            Options(**({"source": text} if options else {}), **dict(options))
    with pytest.raises(ValueError, match="samples: there are no answers without test rows"):
        Options(text=text, samples=str(tmp_path / "samples.jsonl"))
