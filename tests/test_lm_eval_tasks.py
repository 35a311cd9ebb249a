"""Our tasks under lm-eval give our own scores, offline."""

import json
import math
from pathlib import Path

import pytest
import torch
from command import latentlm
from latentlm_evals.reversal import Options, evaluate
from latentlm_evals.reversal.checkpoint import spread
from tiny_models import build

from latentlm.data import word_tokenizer
from latentlm.recipe import load_recipe

DATA = "data: {kind: facts, num_a_to_b: 4, num_b_to_a: 0, num_both: 0, templates_per_fact: 2}\n"


@pytest.mark.filterwarnings("ignore")  # lm-eval's own
def test_lm_eval_agrees_with_our_scores(tmp_path, monkeypatch):
    evaluator, tasks = (pytest.importorskip(f"lm_eval.{name}") for name in ("evaluator", "tasks"))
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("objective: {data: 1.0}\nmodel: {config: {model_type: llama}}\n" + DATA)
    part = load_recipe("own.yaml").data
    tokenizer = word_tokenizer([d["text"] for d in part.documents()] + [i.prompt + i.answer for i in part.items()])
    model = build("llama", vocab_size=len(tokenizer), max_position_embeddings=64)
    model.save_pretrained("tiny")
    tokenizer.save_pretrained("tiny")
    folder = latentlm("lm-eval-path").out.strip()
    got = evaluator.simple_evaluate(
        model="hf", model_args={"pretrained": "tiny", "device": "cpu", "dtype": "float32"},
        tasks=["latentlm_reversal"], bootstrap_iters=0, metadata={"recipe": "own.yaml"},
        task_manager=tasks.TaskManager(include_path=folder, include_defaults=False, metadata={"recipe": "own.yaml"}),
    )["results"]  # fmt: skip
    options = Options()
    items = spread(part.items(), 60)
    ours = evaluate(model, tokenizer, items, max_ranked=options.ranked, max_candidates=options.candidates)["results"]
    for split, asks in (("same", "description"), ("reverse", "name")):
        mine = ours[f"reversal/description_a_to_b/{split}/{asks}"]
        for metric in ("mrr", "delta_logp"):
            assert got[f"latentlm_reversal_{split}"][f"{metric},none"] == pytest.approx(
                mine[f"{metric},none"], rel=1e-4
            )
        assert got[f"latentlm_reversal_{split}_written"]["exact,none"] == mine["exact,none"]


@pytest.mark.filterwarnings("ignore")  # lm-eval's own
def test_text_costs_the_mean_bits_of_its_tokens(tmp_path, monkeypatch):
    evaluator, tasks = (pytest.importorskip(f"lm_eval.{name}") for name in ("evaluator", "tasks"))
    monkeypatch.chdir(tmp_path)
    texts = ["the mason carved a lantern", "a lantern", "the the mason"]
    Path("held_out.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    tokenizer = word_tokenizer(texts)
    model = build("llama", vocab_size=len(tokenizer), max_position_embeddings=64).eval()
    model.save_pretrained("tiny")
    tokenizer.save_pretrained("tiny")
    folder = latentlm("lm-eval-path").out.strip()

    def score(metadata):
        return evaluator.simple_evaluate(
            model="hf", model_args={"pretrained": "tiny", "device": "cpu", "dtype": "float32"},
            tasks=["latentlm_text"], bootstrap_iters=0, metadata=metadata,
            task_manager=tasks.TaskManager(include_path=folder, include_defaults=False, metadata=metadata),
        )["results"]["latentlm_text"]  # fmt: skip

    nats, first = 0.0, tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    for text in texts:
        ids = torch.tensor([[first, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
        logp = model(input_ids=ids).logits.double().log_softmax(-1)[0, :-1]
        nats -= logp.gather(1, ids[0, 1:, None]).sum().item()
    got = score({"source": "held_out.jsonl"})
    assert got["bits_per_byte,none"] == pytest.approx(nats / math.log(2) / sum(map(len, texts)), rel=1e-4)
    assert got["word_perplexity,none"] == pytest.approx(math.exp(nats / sum(len(t.split()) for t in texts)), rel=1e-4)
    with pytest.raises(ValueError, match="needs a source"):
        score({})
