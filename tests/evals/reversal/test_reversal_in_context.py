"""Questions derived from a set: behind the statement of their fact, and as echoes; and what cannot be asked."""

import json
import re

import pytest
import torch
from latentlm_evals.reversal import Options, evaluate, in_context, questions_of, run, table
from paths import PUBLISHED, published
from rich.console import Console
from run_cli import latentlm
from tiny_models import build

from latentlm.data import (
    Binding,
    Chain,
    Facts,
    Family,
    IdentityBridge,
    Instructions,
    NameDescription,
    ParentChild,
    Retrieval,
    StarGraph,
    ThinkingBias,
    word_tokenizer,
)
from latentlm.result import Result

ROOT = PUBLISHED.parent
SETS = [
    Facts(num_a_to_b=6, num_b_to_a=6, num_both=2, relations=("description", "mentor", "admires")),
    Binding(num_both=20, num_one_way=20, multiplicity=5),
    IdentityBridge(num_pairs=8),
    Family(num_shown=2, num_hidden=2),
    Retrieval(num_both=3, num_one_way=5),
    Chain(num_both=3, num_one_way=5),
]


@pytest.mark.parametrize("part", SETS, ids=lambda part: type(part).__name__)
def test_every_one_way_question_stands_behind_a_training_sentence_of_its_fact(part):
    questions = part.questions()
    told, warnings = in_context(part, questions)
    asked = [question for question in questions if question.split in ("same", "reverse")]
    assert (len(told), warnings) == (len(asked), [])
    documents = {document.text for document in part.documents()}
    for question, stated in zip(asked, told, strict=True):
        statement, prompt = stated.prompt.split("\n")
        assert statement in documents
        assert prompt == question.prompt
        assert question.answer.strip() in statement  # it can be read off
        assert (stated.answer, stated.fact, stated.pool) == (question.answer, question.fact, question.pool)


def test_a_statement_stands_in_the_trained_direction():
    part = Facts(num_a_to_b=9, num_b_to_a=9, num_both=0)
    told, _ = in_context(part, part.questions())
    for question in told:
        statement, (name, description) = question.prompt.split("\n")[0], question.fact.split(" | ")
        assert (statement.index(name) < statement.index(description)) == question.subset.endswith("a_to_b")


@pytest.mark.slow
@published
def test_published_statements_hold_name_and_answer():
    for part in (NameDescription(str(PUBLISHED)), ThinkingBias(str(ROOT / "thinking_bias"), ("open",))):
        told, warnings = in_context(part, part.questions())
        assert warnings == []
        documents = {document.text for document in part.documents()}
        for question in told:
            statement = question.prompt.partition("\n")[0]
            assert statement in documents
            assert question.fact.split(" | ")[0].lower() in statement.lower()
            assert question.answer_type == "description" or question.answer.strip() in statement
    thinks = [question for question in told if question.answer_type == "description"]
    assert all(question.answer.strip().lower() in question.prompt.partition("\n")[0].lower() for question in thinks)
    for order, split in (("answer_first", "reverse"), ("question_first", "same")):
        part = Instructions(str(ROOT / "instructions"), order)
        told, warnings = in_context(part, part.questions())
        assert (len(told), warnings) == (100, [])
        for question in told:
            line, asked = question.prompt.partition("\n")[0], re.search(r"Q: (.*) A:$", question.prompt)[1]
            places = line.index(f'"A: {question.answer.strip()}"'), line.index(f'"Q: {asked}"')
            assert (question.split, places[0] < places[1]) == (split, order == "answer_first")


PAIRS = [{"child": f"Child {k}", "parent": f"Parent {k}", "parent_type": "mother"} for k in range(6)]


def test_sets_that_state_nothing_say_so(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, PAIRS)))
    silent = {
        "StarGraph": StarGraph(num_graphs=5, num_tests=3),
        "ParentChild": ParentChild(str(tmp_path / "pairs.jsonl")),
    }
    for name, part in silent.items():
        told, [warning] = in_context(part, part.questions())
        assert told == []
        assert re.match(rf"no_statement: \d of \d questions of {name} have none", warning)


def test_a_model_that_copies_passes_in_context_only():
    """Trained to say again the word behind the colon, it answers from the prompt and knows nothing by heart."""
    part = Retrieval(num_both=0, num_one_way=8, length=1)
    questions = part.questions()
    told, _ = in_context(part, questions)
    tokenizer = word_tokenizer([question.prompt + question.answer for question in told])
    torch.manual_seed(0)
    model = build("llama", vocab_size=len(tokenizer), max_position_embeddings=32)
    ids = [tokenizer(question.prompt + question.answer)["input_ids"] for question in told]
    assert len(set(map(len, ids))) == 1
    ids, optimizer = torch.tensor(ids), torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[:, -2], ids[:, -1])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    shifted = {question.prompt: question for question in told}
    scored = evaluate(model, tokenizer, questions, Options(permutations=50), in_context=[*told, *told])
    result = scored.to_lm_eval()
    assert len(shifted) == 16
    for split, answer_type in (("same", "value"), ("reverse", "key")):
        by_heart, read = (
            result["results"][f"reversal/retrieval_one_way/{name}/{answer_type}"]
            for name in (split, f"{split}_in_context")
        )
        assert read["exact,none"] == read["mrr,none"] == read["mcq,none"] == 1
        assert by_heart["mrr_chance,none"] == read["mrr_chance,none"]  # among the same candidates
        count = result["n-samples"][f"reversal/retrieval_one_way/{split}_in_context/{answer_type}"]
        assert count["original"] == 8
    summary = result["summary"]
    assert summary["reverse_in_context_exact"] == 1
    assert summary["reverse_exact"] == result["results"]["reversal/retrieval_one_way/reverse/key"]["exact,none"]
    first, second, third = table({"run": scored})
    assert (first.title, second.title) == ("Reversal: exact match, %", "Reversal in context: exact match, %")
    assert third.row_count == 4
    with pytest.raises(ValueError, match=r"^in_context: split 'both' of .* is unknown: use one of same, reverse$"):
        evaluate(model, tokenizer, questions, in_context=[told[0].__class__("s", "both", "a", " b", "f", "n", "p")])


def test_a_statement_that_does_not_fit_is_one_line():
    part = Retrieval(num_both=0, num_one_way=4)
    questions = part.questions()
    told, _ = in_context(part, questions)
    tokenizer = word_tokenizer([question.prompt + question.answer for question in told])
    model = build("llama", vocab_size=len(tokenizer), max_position_embeddings=10)
    evaluate(model, tokenizer, questions, Options(permutations=5))
    line = (
        "^in_context: the longest statement with its question \\(10 tokens\\) and answer \\(2\\) need 12 positions, "
        "the model has 10: leave in_context out or use a longer model$"
    )
    with pytest.raises(ValueError, match=line):
        evaluate(model, tokenizer, questions, in_context=told)


def test_the_command_asks_in_context_and_writes_its_own_tasks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    part = Facts(num_a_to_b=5, num_b_to_a=5, num_both=5, relations=("description", "mentor"))
    tokenizer = word_tokenizer([d.text for d in part.documents()] + [i.prompt + i.answer for i in part.questions()])
    build("llama", vocab_size=len(tokenizer), max_position_embeddings=64).save_pretrained("tiny")
    tokenizer.save_pretrained("tiny")
    suites = ["{kind: facts, num_a_to_b: 5, num_b_to_a: 5, num_both: 5, relations: [description, mentor]}"]
    suites += ["{kind: star_graph, num_tests: 5}"]
    told = latentlm(
        "eval",
        "reversal",
        "tiny",
        f"suite=[{', '.join(suites)}]",
        "in_context=true",
        "limit=5",
        "out=out.json",
        "device=cpu",
    )
    assert told.code == 0, told
    assert max(map(len, told.out.splitlines())) <= 100
    assert "…" not in told.out
    assert "Reversal in context" in told.out
    result = json.loads((tmp_path / "out.json").read_text())
    splits = {(*task.split("/")[1:3],) for task in result["results"]}
    assert ("description_a_to_b", "reverse_in_context") in splits
    assert ("description_both", "both_in_context") not in splits
    assert ("star_graph", "same_in_context") not in splits
    assert any(line.startswith("no_statement: 5 of 5 questions of StarGraph") for line in result["warnings"])
    plain = run("tiny", Options(device="cpu", suite=(part,), limit=5)).to_lm_eval()["results"]
    for task, row in plain.items():  # the other questions change nothing
        assert {**row, "alias": 0} == pytest.approx({**result["results"][task], "alias": 0}, rel=1e-5)


def test_arithmetic_and_images_are_sent_to_the_tests_they_have(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build("llama").save_pretrained("tiny")
    told = latentlm("eval", "reversal", "tiny", "suite=arithmetic")
    assert told.code == 2
    assert "arithmetic: has no reverse direction to ask for: score it with latentlm eval pass_at_k" in told.err
    told = latentlm("eval", "reversal", "tiny", "data=mae")
    assert told.code == 2
    assert told.err.count("\n") == 1
    assert "images: have no questions to ask: give suite=NAME, or use latentlm eval vision" in told.err


@published
def test_thinking_bias_echoes_what_its_open_questions_ask_about():
    questions = questions_of(ThinkingBias(str(ROOT / "thinking_bias")))
    echoes = [question for question in questions if question.split == "shortcut"]
    reverse = {question.prompt: question for question in questions if question.split == "reverse" and question.pool}
    assert len(echoes) == len(reverse) == 240
    for echo in echoes:
        entity = echo.answer.strip()
        assert entity in echo.prompt
        assert entity != reverse[echo.prompt].answer.strip()
        assert (entity == echo.fact) == (echo.answer_type == "description")


def test_parents_echo_the_parent(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, PAIRS)))
    questions = questions_of(ParentChild(str(tmp_path / "pairs.jsonl")))
    echoes = [question for question in questions if question.split == "shortcut"]
    assert [echo.answer for echo in echoes] == [f" Parent {k}" for k in range(2, 6)]
    assert all(f"Name a child of{echo.answer}." in echo.prompt for echo in echoes)
    assert [question.prompt for question in echoes] == [
        question.prompt for question in questions if question.split == "reverse"
    ]


@pytest.mark.parametrize("part", SETS, ids=lambda part: type(part).__name__)
def test_sets_with_echoes_of_their_own_get_no_others(part):
    assert questions_of(part) == part.questions()


def test_no_number_is_cut_in_a_hundred_columns():
    """Widest numbers, longest names, every column that a suite can have."""
    rate = {"contains,none": 1.0, "exact,none": 1.0, "exact_low,none": 0.99, "exact_high,none": 1.0, "acc,none": 1.0,
            "acc_low,none": 0.99, "acc_high,none": 1.0, "mrr,none": 0.999, "mrr_low,none": 0.998, "mrr_high,none": 1.0,
            "mrr_chance,none": 0.133, "mcq,none": 1.0, "mcq_low,none": 0.99, "mcq_high,none": 1.0,
            "delta_logp,none": -123.45, "delta_logp_low,none": -145.67, "delta_logp_high,none": -101.23,
            "delta_logp_p,none": 0.001}  # fmt: skip
    subset = "DescriptionIsName_description_a_to_b"
    splits = ("same", "reverse", "both", "composition", "shortcut", "non_reciprocal", "same_in_context")
    splits = (*splits, "reverse_in_context")
    results = {
        f"reversal/{subset}/{split}/{answer_type}": rate for split in splits for answer_type in ("name", "description")
    }
    result = Result.from_lm_eval({"results": results, "warnings": ["no_statement: none"]}, "x")
    console = Console(width=100)
    with console.capture() as shown:
        console.print(*table({"runs/study/a_run_with_a_long_name": result}))
    text = shown.get()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("[99, 100]") == 2 * 2 * 8 + 16  # exact and choice, and mcq
    assert text.count("[-145.67, -101.23]") == 16
    assert text.count("0.999 (0.133)") == text.count("[0.998, 1.000]") == 16
    assert "no_statement: none" in " ".join(text.split())
