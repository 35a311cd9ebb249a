"""Bits per byte of held-out texts while training: those of the saved model, by the bytes of the file."""

import json
from pathlib import Path

import pytest
from latentlm_evals.answers import Options, evaluate
from run_cli import TINY, latentlm
from transformers import AutoModelForCausalLM, AutoTokenizer

from latentlm.result import TaskKey


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_held_out_bits_per_byte_are_those_of_the_evaluation():
    rows = [{"text": f"{n} käme after {n - 1}"} for n in range(30)]
    for name, part in (("train.jsonl", rows[:24]), ("held.jsonl", rows[24:])):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in part))
    words = ["data.source=train.jsonl", "data.validation=held.jsonl", "data.max_length=48", "training.max_steps=3",
             "training.learning_rate=0.01", "training.save_strategy=no", "training.output_dir=run"]  # fmt: skip
    done = latentlm("train", "next_token", TINY, "model.tokenizer={kind: bpe, vocab_size: 280}", *words)
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "eval_loss" in line][-1]
    model, tokenizer = (kind.from_pretrained("run/model") for kind in (AutoModelForCausalLM, AutoTokenizer))
    task = evaluate(model, tokenizer, Options(text="held.jsonl")).tasks[TaskKey("answers", ("text",))]
    assert last["eval_bits_per_token"] == pytest.approx(task.value("bits_per_token"), rel=1e-4)
    assert last["eval_bits_per_byte"] == pytest.approx(task.value("bits_per_byte"), rel=1e-4)
    firsts = [tokenizer.decode(tokenizer(row["text"])["input_ids"][:1]) for row in rows[24:]]
    left = [len(row["text"].encode()) - len(first.encode()) for row, first in zip(rows[24:], firsts, strict=True)]
    assert task.n_samples["bytes"] == sum(left)


def test_a_tokenizer_of_words_has_no_bytes():
    Path("train.jsonl").write_text("".join(json.dumps({"text": f"number {n} of ten"}) + "\n" for n in range(10)))
    words = ["data.source=train.jsonl", "data.validation=0.2", "training.max_steps=1", "training.output_dir=run"]
    done = latentlm("train", "next_token", TINY, *words, "training.save_strategy=no", "data.max_length=32")
    assert done.code == 0, done.err
    assert "eval_bits_per_token" in Path("run/metrics.jsonl").read_text()
    assert "bits_per_byte" not in Path("run/metrics.jsonl").read_text()
