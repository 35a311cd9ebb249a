"""The demo compares two models that differ in their objective alone, and ends with four lines."""

import dataclasses
import json
import subprocess
import sys

from paths import ROOT

from latentlm.experiment.recipe import load_recipe


def test_the_two_models_differ_in_their_objective_alone():
    with_terms, control = load_recipe("demo", []), load_recipe("demo", ["objective=next_token"])
    assert with_terms.objective.terms
    assert not control.objective.terms
    assert dataclasses.replace(with_terms, objective=control.objective) == control


def test_it_ends_with_four_lines(tmp_path):
    scores = {"a_to_b/same/description": 1.0, "b_to_a/same/name": 0.9, "a_to_b/reverse/name": 0.25}
    scores |= {"b_to_a/reverse/description": 0.0}
    for run in ("next_token", "reversal"):
        (tmp_path / run / "eval").mkdir(parents=True)
        results = {f"reversal/description_{task}": {"exact,none": score} for task, score in scores.items()}
        (tmp_path / run / "eval/reversal.json").write_text(json.dumps({"results": results}))
    script = ROOT / "scripts/demo_summary.py"
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    for line in lines[1:3]:
        assert "95 %" in line.split("other order")[0]
        assert "names  25 %" in line
        assert "descriptions   0 %" in line


def test_a_model_that_has_not_learned_the_order_seen_is_marked(tmp_path):
    for run, learned in (("next_token", 0.1), ("reversal", 1.0)):
        scores = {"a_to_b/same/description": learned, "b_to_a/same/name": learned}
        scores |= {"a_to_b/reverse/name": 0.0, "b_to_a/reverse/description": 0.0}
        results = {f"reversal/description_{task}": {"exact,none": score} for task, score in scores.items()}
        (tmp_path / run / "eval").mkdir(parents=True)
        (tmp_path / run / "eval/reversal.json").write_text(json.dumps({"results": results}))
    script = ROOT / "scripts/demo_summary.py"
    lines = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True).stdout
    assert ["does not count" in line for line in lines.splitlines()] == [False, True, False, False]
