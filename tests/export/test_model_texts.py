"""Texts that a model writes by itself: its own distribution, usable as training data, mistakes in one line."""

import json
from pathlib import Path

import pytest
import torch
from run_cli import TINY, latentlm
from tiny_models import build
from transformers import AutoTokenizer

from latentlm.data import word_tokenizer

WORDS = [f"w{i}" for i in range(90)]


@pytest.fixture(autouse=True)
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = build("llama")
    with torch.no_grad():  # far from uniform, so that the likeliest word is one
        network.lm_head.weight.mul_(40)
    network.generation_config.eos_token_id = None
    network.save_pretrained("net")
    word_tokenizer([" ".join(WORDS)]).save_pretrained("net")
    return network


def texts(path):
    return [json.loads(line)["text"] for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_a_low_temperature_writes_the_likeliest_words(model):
    told = latentlm(
        "sample", "net", "out.jsonl", "--rows", "3", "--tokens", "6", "--temperature", "1e-4", "--start", "w3"
    )
    assert (told.code, told.out) == (0, "out.jsonl  3 texts\n"), told.err
    tokenizer = AutoTokenizer.from_pretrained("net")
    ids = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else [model.config.bos_token_id]
    ids += tokenizer("w3", add_special_tokens=False).input_ids
    for _ in range(6):
        ids.append(int(model.eval()(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert texts("out.jsonl") == [tokenizer.decode(ids, skip_special_tokens=True)] * 3


def test_a_seed_is_the_same_texts_and_they_are_training_data():
    for out, seed in (("a.jsonl", "1"), ("b.jsonl", "1"), ("c.jsonl", "2")):
        assert latentlm("sample", "net", out, "--rows", "40", "--tokens", "12", "--seed", seed).code == 0
    assert texts("a.jsonl") == texts("b.jsonl") != texts("c.jsonl")
    assert len(texts("a.jsonl")) == 40
    assert len(set(texts("a.jsonl"))) > 30
    parts = "data.parts=[{source: {kind: facts, num_a_to_b: 4, num_b_to_a: 4, num_both: 8}, terms: []}, "
    told = latentlm(
        "train", "lwf", TINY, "data.kind=mixture", parts + "{source: a.jsonl, terms: [keep]}]",
        "training.max_steps=2", "training.warmup_steps=0", "training.logging_steps=1", "training.output_dir=run",
    )  # fmt: skip
    assert told.code == 0, told.err
    logs = [json.loads(line) for line in Path("run/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    seen = [log["keep/value"] for log in logs if "keep/value" in log]
    assert seen[0] == pytest.approx(0, abs=1e-6)
    assert seen[1] > 1e-6


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["net", "out.txt"], "out.txt; name a file that ends in .jsonl"),
        (["net", "net/config.jsonl", "--rows", "0"], "--rows: 0; give 1 or more"),
        (["net", "out.jsonl", "--tokens", "3"], "--tokens: 3; give 4 or more"),
        (["net", "out.jsonl", "--tokens", "128"], "--tokens: 128; the model has 128 positions, 1 for the start"),
        (["net", "out.jsonl", "--temperature", "0"], "--temperature: 0.0; give a number above 0"),
        (["net", "gone/out.jsonl"], "gone is no folder; make it first"),
        (["gone", "out.jsonl"], "gone"),
        ([".", "out.jsonl"], ". has no config.json; name a model folder, such as RUN/model"),
        (["net", "there.jsonl"], "there.jsonl is there already; name a new file"),
    ],
)
def test_mistakes_are_one_line(words, told):
    Path("there.jsonl").touch()
    answer = latentlm("sample", *words)
    assert answer.code == 2
    assert told in answer.err
    assert answer.err.count("\n") == 1


def test_a_model_that_ends_every_text_is_told(model):
    model.generation_config.eos_token_id = list(range(97))
    model.save_pretrained("net")
    told = latentlm("sample", "net", "out.jsonl", "--rows", "2", "--tokens", "8")
    assert (told.code, told.out) == (2, "")
    assert "ends nearly every text at once; give it a --start" in told.err
    assert not [*Path().glob("*out*")]
