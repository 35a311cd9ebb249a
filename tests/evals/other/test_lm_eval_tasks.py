"""Our tasks under lm-eval give our own scores, offline; and metadata that nobody reads is a mistake."""

import json
import math
from pathlib import Path

import pytest
import torch
from latentlm_evals.reversal import Options, evaluate, questions_of
from latentlm_evals.reversal.score_run import spread
from run_cli import latentlm
from tiny_models import build

from latentlm.config.schema import parse
from latentlm.data import QuestionSource, word_tokenizer
from latentlm.experiment.recipe import load_recipe

EVALUATOR, TASKS = (pytest.importorskip(f"lm_eval.{name}") for name in ("evaluator", "tasks"))
pytestmark = pytest.mark.filterwarnings("ignore")  # lm-eval's own

FACTS = {"kind": "facts", "num_a_to_b": 4, "num_b_to_a": 0, "num_both": 4, "templates_per_fact": 2}
MINE = "objective: {lm_weight: 1.0}\nmodel: {config: {model_type: llama}}\n"
LETTERS = "Who is it?\nOptions:\n(A) Ann Ash.\n(B) Bo Birch.\n(C) Cy Cole.\n(D) Di Dorn.\n"
STAR = {"kind": "star_graph", "num_graphs": 10, "num_tests": 6}
CHAIN = {"kind": "chain", "num_both": 2, "num_one_way": 4}
END = {"write": "_written", "rank": "", "choose": "_choice"}


def _model(texts, taught=()):
    tokenizer = word_tokenizer(texts)
    model = build("llama", vocab_size=len(tokenizer), max_position_embeddings=128)
    if taught:  # something to be right about
        rows = tokenizer(list(taught), return_tensors="pt", padding=True)
        labels = rows["input_ids"].masked_fill(rows["attention_mask"] == 0, -100)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        for _ in range(30):
            model(**rows, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    model.save_pretrained("tiny")
    tokenizer.save_pretrained("tiny")
    return model, tokenizer


def _manager(metadata):
    folder = latentlm("lm-eval-path").out.strip()
    return TASKS.TaskManager(include_path=folder, include_defaults=False, metadata=metadata)


def _score(tasks, metadata, model="tiny"):
    arguments = {"pretrained": model, "device": "cpu", "dtype": "float32"}
    return EVALUATOR.simple_evaluate(
        model="hf", model_args=arguments, tasks=tasks, bootstrap_iters=0,
        task_manager=_manager(arguments | metadata),  # as the command line merges them
    )["results"]  # fmt: skip


def _people(folder):
    people = ["Ann Ash", "Bo Birch", "Cy Cole", "Di Dorn"]
    rows = [
        {
            "group": "NameIsDescription",
            "task": "D2N",
            "question": LETTERS.replace("it", f"{k}"),
            "answer": f"({letter}) {who}.",
        }
        for k, (letter, who) in enumerate(zip("ABCD", people, strict=True))
    ]
    (folder / "people-description_MCQs.jsonl").write_text("\n".join(map(json.dumps, rows)))


def _family(folder):
    rows = [f"Child {a} Of{k},Parent Of{k},mother" for k in range(6) for a in ("Eve", "Gil")]
    (folder / "pairs.csv").write_text("\n".join(["child,parent,parent_type", *rows]))


@pytest.mark.parametrize(
    ("suite", "wanted"),
    [
        (FACTS, {("same", "rank"), ("reverse", "rank"), ("both", "rank"), ("reverse", "write"), ("shortcut", "write")}),
        pytest.param(
            {"kind": "family", "num_shown": 3, "num_hidden": 2},
            {("composition", "rank"), ("composition", "write")},
            marks=pytest.mark.slow,
        ),
        pytest.param(CHAIN, {("same", "write"), ("non_reciprocal", "write")}, marks=pytest.mark.slow),
        pytest.param(STAR, {("same", "choose"), ("same", "write")}, marks=pytest.mark.slow),
        pytest.param(
            {"kind": "thinking_bias", "folder": ".", "forms": ["choice"]},
            {("reverse", "choose"), ("reverse", "write")},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"kind": "parent_child", "file": "pairs.csv"},
            {("same", "rank"), ("reverse", "rank"), ("reverse", "write")},
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda suite: suite["kind"] if isinstance(suite, dict) else "",
)
def test_lm_eval_agrees_with_our_scores(tmp_path, monkeypatch, suite, wanted):
    monkeypatch.chdir(tmp_path)
    _people(tmp_path)
    _family(tmp_path)
    questions = spread(questions_of(parse(QuestionSource, suite)), 60)
    whole = [question.prompt + question.answer for question in questions]
    model, tokenizer = _model([*whole, *(choice for question in questions for choice in question.choices)], whole[::2])
    told = {f"latentlm_reversal_{split}{END[form]}": (split, form) for split, form in wanted}
    got = _score(list(told), {"suite": suite})
    ours = evaluate(model, tokenizer, questions, Options()).to_lm_eval()
    scores = {"write": ["exact"], "rank": ["mrr", "mcq", "delta_logp"], "choose": ["acc", "acc_chance"]}
    for task, (split, form) in told.items():
        groups = [name for name in ours["results"] if name.split("/")[-2] == split]
        sizes = [ours["n-samples"][name]["original" if form == "write" else "ranked"] for name in groups]
        for metric in scores[form]:
            parts = [ours["results"][name][f"{metric},none"] for name in groups]
            mean = sum(size * part for size, part in zip(sizes, parts, strict=True)) / sum(sizes)
            assert got[task][f"{metric},none"] == pytest.approx(mean, rel=1e-4, abs=1e-6), (task, metric)


@pytest.mark.slow
def test_the_group_is_that_of_the_issue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = json.dumps({"source": FACTS})
    Path("own.yaml").write_text(f"{MINE}data: {data}\n")
    questions = load_recipe("own.yaml").source.questions()
    _model([question.prompt + question.answer for question in questions])
    got = _score(["latentlm_reversal"], {"recipe": "own.yaml"})
    names = [f"latentlm_reversal_{split}{end}" for split in ("same", "reverse") for end in ("", "_written")]
    assert set(got) - {"latentlm_reversal"} == set(names)
    assert {"exact,none", "contains,none", "cut,none"} <= set(got["latentlm_reversal_same_written"])


@pytest.mark.parametrize(
    ("task", "metadata", "line"),
    [
        ("reverse", {"recipee": "x"}, r"unknown key 'recipee'; did you mean 'recipe'\?; if it is an argument"),
        ("reverse", {"data": "facts"}, r"unknown key 'data'; known: candidates, .*\"ignore\": \[\"data\"\]"),
        ("reverse", {"limit": 0}, "limit: 0 is too few"),
        ("reverse", {"limit": "all"}, "metadata.limit: 'all' is not int or null"),
        ("reverse", {"suite": "facts", "recipe": "x"}, "suite: names the questions, and so does recipe"),
        ("reverse", {"suite": "fact"}, "unknown kind 'fact'; did you mean 'facts'"),
        ("reverse", {"suite": STAR}, "no questions of split reverse to rank; the data have the splits same: "
         "ask latentlm_reversal_same_written, latentlm_reversal_same_choice"),
        ("same", {"suite": STAR}, "no questions of split same to rank; the data have the splits same"),
        ("composition_written", {"suite": CHAIN}, "to write; the data have .*latentlm_reversal_non_reciprocal_written"),
    ],
)  # fmt: skip
def test_metadata_that_fit_nothing_are_one_line(task, metadata, line):
    with pytest.raises(ValueError, match=line) as caught:
        _manager(metadata).load([f"latentlm_reversal_{task}"])
    assert "\n" not in str(caught.value)


def test_arguments_of_the_model_pass_and_others_where_they_are_named():
    pytest.importorskip("lm_eval.models.huggingface")
    metadata = {"pretrained": "x", "attn_implementation": "eager", "dtype": "float32", "suite": CHAIN}
    assert _manager(metadata).load(["latentlm_reversal_same"])
    with pytest.raises(ValueError, match="unknown key 'enforce_eager'"):
        _manager(metadata | {"enforce_eager": True}).load(["latentlm_reversal_same"])
    assert _manager(metadata | {"enforce_eager": True, "ignore": ["enforce_eager"]}).load(["latentlm_reversal_same"])


def test_an_answer_that_cannot_be_written_on_a_line_is_named(tmp_path):
    rows = ["child,parent,parent_type", *(f'"Ann\n{k}",P{k},mother' for k in range(4))]
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    metadata = {"suite": {"kind": "parent_child", "file": str(tmp_path / "pairs.csv")}}
    with pytest.raises(ValueError, match=r"the answer ' Ann\\n2' has two lines"):
        _manager(metadata).load(["latentlm_reversal_reverse_written"])


def test_what_is_written_is_right_for_any_right_answer_and_flagged_where_it_was_cut():
    from latentlm_evals.lm_eval_tasks.latentlm_tasks import chosen, written

    doc = {"answer": " Eve Ash", "answers": [" Eve Ash", " Gil Ash"]}
    texts = {" gil ash.": (1, 1, 0), " It is Eve Ash": (0, 1, 0), " Eve A": (0, 0, 1), "": (0, 0, 0), " Bo": (0, 0, 0)}
    for text, (exact, contains, cut) in texts.items():
        assert written(doc, [text]) == {"exact": exact, "contains": contains, "cut": cut}
    # a tokenizer of whole words puts spaces around marks when it writes
    assert written({"answers": [" A) Jean-Luc"]}, ["A ) jean - luc ."])["exact"] == 1
    alternatives = {"gold": 1}
    for logp, acc in (([-3.0, -1.0, -2.0], 1), ([-1.0, -1.0, -2.0], 1 / 2), ([-1.0, -2.0, -3.0], 0)):
        assert chosen(alternatives, [(value, False) for value in logp]) == {"acc": acc, "acc_chance": 1 / 3}


def test_text_costs_the_mean_bits_of_its_tokens(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = ["the mason carved a lantern", "a lantern", "the the mason"]
    Path("held_out.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    model, tokenizer = _model(texts)
    nats, first = 0.0, tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    for text in texts:
        ids = torch.tensor([[first, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
        logp = model(input_ids=ids).logits.double().log_softmax(-1)[0, :-1]
        nats -= logp.gather(1, ids[0, 1:, None]).sum().item()
    got = _score(["latentlm_text"], {"source": "held_out.jsonl"})["latentlm_text"]
    assert got["bits_per_byte,none"] == pytest.approx(nats / math.log(2) / sum(map(len, texts)), rel=1e-4)
    assert got["word_perplexity,none"] == pytest.approx(math.exp(nats / sum(len(t.split()) for t in texts)), rel=1e-4)
    with pytest.raises(ValueError, match="needs a source"):
        _score(["latentlm_text"], {})
