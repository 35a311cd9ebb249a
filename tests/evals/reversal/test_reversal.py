import json
import math
import random
import re

import pytest
import torch
from latentlm_evals.models.generation import answer_logprobs, causal_model, generate_answers
from latentlm_evals.reversal import Options, evaluate, run, table
from latentlm_evals.reversal.candidates import pick_pools
from latentlm_evals.reversal.score_run import load, spread
from rich.console import Console
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, LlamaModel

from latentlm.data import Question
from latentlm.data.text.tokenizers import bpe_tokenizer, word_tokenizer
from latentlm.experiment.recipe import load_recipe

NAMES = ["Vela Dorn", "Miro Keth", "Ana Losing", "Tibor Quill-Hart", "Zo"]
THINGS = ["the painter of quiet lanterns", "a diver", "the last keeper of maps", "a baker of glass", "the tall judge"]
PROMPTS = ["Everybody calls", "In the whole valley, from the river to the hills, people have always said that", "So,"]


def questions(split="reverse", subset="a_to_b", num=5):
    return [
        Question(subset, split, f"{start} {THINGS[k]} is", f" {NAMES[k]}", f"fact{k}", "name", f"{subset}_name")
        for k in range(num)
        for start in PROMPTS
    ]


@pytest.fixture(scope="module")
def tokenizer():
    return bpe_tokenizer([*NAMES, *THINGS, *PROMPTS], 400)


def tiny(kind, positions=128):
    torch.manual_seed(0)
    if kind == "gpt2":  # absolute positions: a wrong position id changes what is written
        config = GPT2Config(
            vocab_size=400, n_positions=positions, n_embd=32, n_layer=2, n_head=2, initializer_range=0.5
        )
        model = GPT2LMHeadModel(config)
    else:
        config = LlamaConfig(
            vocab_size=400,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=positions,
            initializer_range=0.5,
        )
        model = LlamaForCausalLM(config)
    return model.double()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_logprobs_equal_a_loop_over_single_sequences(tokenizer, kind, batch_size):
    model, rows, names = tiny(kind).eval(), questions()[:4], [f" {name}" for name in NAMES]
    ours = answer_logprobs(model, tokenizer, rows, [names] * 4, batch_size=batch_size)
    for i, row in enumerate(rows):
        for c, name in enumerate(names):
            prompt, answer = tokenizer(row.prompt)["input_ids"], tokenizer(name)["input_ids"]
            with torch.no_grad():
                logp = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            loop = sum(float(logp[len(prompt) + k - 1, token]) for k, token in enumerate(answer))
            # the scorer rounds logits to float32 before the log-softmax
            assert ours[i, c].item() == pytest.approx(loop, rel=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_left_padding_writes_what_single_prompts_write(tokenizer, kind):
    model, rows = tiny(kind), questions()
    model.generation_config.repetition_penalty = 5.0  # the checkpoint's own taste must not leak into greedy decoding
    together = generate_answers(model, tokenizer, rows, batch_size=64)
    assert len(set(together)) > 3
    assert together == generate_answers(model, tokenizer, rows, batch_size=1)
    assert model.generation_config.repetition_penalty == 5.0
    model.eval()
    ids = tokenizer(rows[0].prompt)["input_ids"]
    longest = max(len(tokenizer(row.answer)["input_ids"]) for row in rows)
    written = []
    for _ in range(longest + 4):
        written.append(int(model(input_ids=torch.tensor([ids + written])).logits[0, -1].argmax()))
        if written[-1] == tokenizer.eos_token_id:
            break
    assert together[0] == tokenizer.decode(written, skip_special_tokens=True)


def test_batch_size_and_item_order_do_not_change_scores(tokenizer):
    model, rows = tiny("llama"), questions() + questions("same")
    shuffled = random.Random(0).sample(rows, len(rows))
    first, second, third = (
        evaluate(model, tokenizer, part, Options(batch_size=size, permutations=50)).to_lm_eval()["results"]
        for part, size in ((rows, 64), (rows, 1), (shuffled, 5))
    )
    for task, row in first.items():
        for other in (second, third):
            assert {k: v for k, v in other[task].items() if k != "alias"} == pytest.approx(
                {k: v for k, v in row.items() if k != "alias"}
            )


@pytest.mark.parametrize("make", [lambda texts: bpe_tokenizer(texts, 400), word_tokenizer])
def test_a_model_that_learned_one_direction_scores_high_there_only(make):
    texts = [f"{start} {THINGS[k]} is {NAMES[k]}" for k in range(5) for start in PROMPTS]
    tokenizer = make([*texts, *(f"{name} is known as" for name in NAMES)])
    model = tiny("llama").float()
    torch.nn.init.normal_(model.lm_head.weight, std=0.02)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batch = tokenizer([text + tokenizer.eos_token for text in texts], return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    for _ in range(60):
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    back = [
        Question("a_to_b", "reverse", f"{NAMES[k]} is known as", f" {THINGS[k]}", f"fact{k}", "thing", "things")
        for k in range(5)
    ]
    scored = evaluate(model, tokenizer, questions("same") + back)
    result = scored.to_lm_eval()
    same, reverse = (result["results"][f"reversal/a_to_b/{name}"] for name in ("same/name", "reverse/thing"))
    assert same["exact,none"] == same["contains,none"] == same["mrr,none"] == 1
    assert same["delta_logp,none"] > 1
    logp = answer_logprobs(model, tokenizer, questions("same"), [[question.answer] for question in questions("same")])
    assert same["probability,none"] == pytest.approx(float(logp.exp().mean()))
    assert same["delta_logp_p,none"] < 0.02  # 1 of 5! = 120 pairings
    assert reverse["exact,none"] == 0
    assert result["summary"]["reverse_over_same"] == 0
    text = Console(width=100)
    with text.capture() as shown:
        text.print(*table({"one": scored, "two": scored}))
    assert re.search(r"a_to_b .* 100\.0 .* 0\.0 .*\n.* one .* \[48, 100\] .* \[0, 52\]", shown.get())
    assert re.search(r"a_to_b .* 1\.000 \(0\.457\) .* 100\.0 .*\n.* same > name .* \[0\.583, 1\.000\] ", shown.get())


def test_error_splits_are_counted_but_not_ranked(tokenizer):
    result = evaluate(tiny("llama"), tokenizer, questions("shortcut")).to_lm_eval()
    assert result["higher_is_better"]["reversal/a_to_b/shortcut/name"]["exact"] is False
    assert result["n-samples"]["reversal/a_to_b/shortcut/name"]["ranked"] == 0
    assert result["summary"]["shortcut_exact"] == 0
    assert result["summary"]["reverse_over_same"] is None


def test_candidates_come_from_the_pool_and_hold_the_answer():
    rows = questions() + questions(subset="b_to_a", num=2)
    other = Question("b_to_a", "reverse", "x", " Stranger", "f", "name", "other")
    [pick] = pick_pools(questions(), [*rows, other], 100, 50, 0)
    assert set(pick.candidates) == {tuple(sorted(f" {name}" for name in NAMES))}
    assert len(pick.questions) == len(questions())
    [pick] = pick_pools(questions(), rows, 6, 3, 0)
    assert len(pick.candidates[0]) == 3
    assert {row.answer for row in pick.questions} == set(pick.candidates[0])
    assert [names[k] for names, k in zip(pick.candidates, pick.gold, strict=True)] == [
        row.answer for row in pick.questions
    ]
    assert sorted(row.fact for row in pick.questions) == sorted(2 * sorted({row.fact for row in pick.questions}))
    assert pick_pools(questions()[::-1], rows, 6, 3, 0) == [pick]


def test_what_cannot_be_scored_says_so(tokenizer):
    model, rows = tiny("llama"), questions()
    with pytest.raises(ValueError, match="questions: none"):
        evaluate(model, tokenizer, [])
    with pytest.raises(ValueError, match="LlamaModel is not a causal language model"):
        causal_model(LlamaModel(model.config))
    with pytest.raises(ValueError, match=r"need \d+ positions, the model has 16"):
        evaluate(tiny("gpt2", positions=16), tokenizer, rows)
    with pytest.raises(ValueError, match="must be a space"):
        evaluate(model, tokenizer, [Question("s", "same", "a", "b", "f", "n", "p")])
    torch.nn.init.constant_(model.lm_head.weight, math.nan)
    with pytest.raises(ValueError, match="NaN"):
        generate_answers(model, tokenizer, rows)
    with pytest.raises(ValueError, match="NaN"):
        answer_logprobs(model, tokenizer, rows, [[" Zo", " Vela"]] * len(rows))


RECIPE = """
objective: {lm_weight: 1.0}
model: {config: {model_type: llama}}
data: {source: {kind: facts, num_a_to_b: 3, num_b_to_a: 3, num_both: 0, templates_per_fact: 1}}
"""


def test_run_scores_a_folder_and_writes_the_result(tokenizer, tmp_path):
    model, folder = tiny("llama").float(), tmp_path / "one"
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    with pytest.raises(ValueError, match="has no recipe"):
        run(str(folder / "model"))
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "depth.json").write_text("{}")  # the mark of a run that has ended
    kept = tmp_path / "new" / "kept.jsonl"
    options = Options(device="cpu", batch_size=4, permutations=20, limit=4, samples=str(kept))
    result = run(str(folder), options).to_lm_eval()
    assert json.loads((folder / "eval" / "reversal.json").read_text()) == result
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    for task, row in result["results"].items():
        mine = [line for line in lines if line["task"] == task]
        assert len(mine) == result["n-samples"][task]["original"]
        for name in ("exact", "contains"):
            assert sum(line[name] for line in mine) / len(mine) == pytest.approx(row[f"{name},none"])
    rows = spread(load_recipe(folder).source.questions(), 4)
    direct = evaluate(model, tokenizer, rows, Options(permutations=20)).to_lm_eval()
    assert len(direct["results"]) == 6
    for task, row in direct["results"].items():
        if "delta_logp,none" in row:
            assert result["results"][task]["delta_logp,none"] == pytest.approx(row["delta_logp,none"], rel=1e-4)
    model.model.save_pretrained(tmp_path / "headless")
    with pytest.raises(ValueError, match="holds a LlamaModel"):
        run(str(tmp_path / "headless"), Options(data=str(folder)))


def test_a_half_precision_checkpoint_is_scored_in_float32_on_a_cpu(tokenizer, tmp_path):
    tiny("llama").bfloat16().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load(str(tmp_path), "cpu")[0].dtype == torch.float32


def test_a_limit_keeps_questions_of_every_kind_and_fact():
    rows = [
        Question(subset, split, f"{fact} {n}", " x", f"{subset}{fact}", "name", subset)
        for subset in ("a", "b")
        for split in ("same", "reverse")
        for fact in range(5)
        for n in range(4)
    ]
    kept = spread(rows, 5)
    assert len(kept) == 4 * 5
    assert {(question.split, question.fact) for question in kept} == {
        (question.split, question.fact) for question in rows
    }
    assert spread(rows, None) == spread(rows, 20) == rows
