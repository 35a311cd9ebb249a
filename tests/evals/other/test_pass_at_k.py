"""pass@k: the estimate is the mean over subsets, samples are the network's own, and a run is scored by its own data."""

import itertools
import json

import pytest
import torch
from latentlm_evals.pass_at_k import Options, estimate, evaluate, run, table
from tiny_recipes import tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from latentlm.data import Arithmetic, Problem
from latentlm.experiment.recipe import load_recipe
from latentlm.experiment.train import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(load_recipe("arithmetic", [*tiny("arithmetic"), f"training.output_dir={folder}"]))


@pytest.mark.parametrize(("n", "c", "k"), [(6, 0, 2), (6, 1, 1), (6, 2, 3), (6, 5, 4), (6, 6, 6), (5, 4, 2)])
def test_the_estimate_is_the_mean_over_all_subsets(n, c, k):
    answers = [True] * c + [False] * (n - c)
    hits = [any(subset) for subset in itertools.combinations(answers, k)]
    assert estimate(n, c, k) == pytest.approx(sum(hits) / len(hits))


def test_samples_follow_the_network(trained):
    model = AutoModelForCausalLM.from_pretrained(trained / "model")
    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    tokens = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    problems = [Problem("1 + 2 =", token) for token in tokens if token.isdigit()]
    options = Options(samples=800, k=(1,), max_completion=1, seed=3)
    with torch.no_grad():
        logits = model(**tokenizer("1 + 2 =", return_tensors="pt")).logits[0, -1]
    for problem in problems[:3]:
        scores = evaluate(model, tokenizer, [problem], options).to_lm_eval()["results"]["pass_at_k"]
        chance = logits.softmax(-1)[tokenizer.convert_tokens_to_ids(problem.answer)].item()
        assert scores["pass@1,none"] == pytest.approx(chance, abs=4 * (chance * (1 - chance) / 800) ** 0.5)


def test_a_run_is_scored_on_its_own_problems(trained):
    scored = run(str(trained), Options(samples=8, k=(1, 8), max_completion=3))
    result = scored.to_lm_eval()
    assert json.loads((trained / "eval" / "pass_at_k.json").read_text()) == result
    row = result["results"]["pass_at_k"]
    assert 0 <= row["pass@1_low,none"] <= row["pass@1,none"] <= row["pass@1_high,none"] <= 1
    assert row["pass@1,none"] <= row["pass@8,none"]
    assert result["n-samples"]["pass_at_k"]["effective"] == 8
    assert [example["prompt"] for example in result["examples"]["pass_at_k"]] == [
        problem.prompt for problem in load_recipe(trained).source.problems("test")[:3]
    ]
    assert "pass@8" in {column.header for column in table({"run": scored})[0].columns}
    other = run(str(trained), Options(samples=8, k=(1,), max_completion=3, data=Arithmetic(20, 5, highest=9)))
    assert any(line.startswith("other_data") for line in other.warnings)


def test_mistakes_are_one_line(trained, tmp_path):
    with pytest.raises(ValueError, match=r"k: \[1, 9\]; give numbers from 1 to samples"):
        Options(samples=8, k=(1, 9))
    with pytest.raises(ValueError, match="its data cannot check answers; name some, such as data=arithmetic"):
        run(str(trained / "model"))
    with pytest.raises(ValueError, match="the model has 64: lower it"):
        run(str(trained), Options(max_completion=64))
