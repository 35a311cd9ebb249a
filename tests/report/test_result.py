"""The result of an evaluation: the file is lm-eval's shape, comes back as it went, and is never half written."""

import json
import math
from pathlib import Path

import pytest
from latentlm_evals import coherence, pass_at_k, probing, reversal, vision

from latentlm.report import write_report
from latentlm.result import Estimate, Result, Task, TaskKey, merge
from latentlm.whole_files import write_text


def result(evaluation="reversal", model="runs/mine"):
    scores = {
        "exact": Estimate(0.5, 0.1, 0.3, 0.7, higher_is_better=True),
        "contains": Estimate(0.5),
        "mrr": Estimate(0.25),
        "gone": Estimate(math.nan, low=math.nan, high=math.nan),
        "exact_match,strict": Estimate(0.125, 0.5),
    }
    key = TaskKey.parse(f"{evaluation}/a/b/same/name")
    task = Task(scores, "a b same name", {"original": 4, "candidates": [3]}, 3)
    return Result({key: task}, {"model_path": model}, "2026-11-30", {"torch": "2"}, ["few: it is"], {"contexts": ["x"]})


def test_a_file_has_the_keys_of_lm_eval_and_comes_back_as_it_went(tmp_path):
    file = tmp_path / "new" / "a.json"
    result().write(file)
    data = json.loads(file.read_text())
    assert data["results"] == {
        "reversal/a/b/same/name": {
            "alias": "a b same name", "exact,none": 0.5, "exact_stderr,none": 0.1, "exact_low,none": 0.3,
            "exact_high,none": 0.7, "contains,none": 0.5, "mrr,none": 0.25, "gone,none": None, "gone_low,none": None,
            "gone_high,none": None, "exact_match,strict": 0.125, "exact_match_stderr,strict": 0.5,
        }
    }  # fmt: skip
    assert data["config"] == {"model_path": "runs/mine", "software": {"torch": "2"}, "date": "2026-11-30"}
    assert data["higher_is_better"] == {"reversal/a/b/same/name": {"exact": True}}
    back = Result.read(file)
    assert back.to_lm_eval() == data
    (task,) = back.tasks.values()
    assert task.scores["exact"] == result().tasks[TaskKey.parse("reversal/a/b/same/name")].scores["exact"]
    assert not task.has("gone")
    assert task.scores["gone"].interval is None
    assert task.scores["exact"].interval == (0.3, 0.7)


def test_rounding_does_not_put_a_bound_on_the_wrong_side_of_the_value():
    value = 0.016666666666666684
    assert Estimate(value, low=0.016666666666666687, high=0.016666666666666680).interval == (value, value)
    assert Estimate(0.5, low=0.5 + 1e-9, high=0.4).interval == (0.5 + 1e-9, 0.4)  # what is no rounding stays


def test_files_of_lm_eval_itself_are_read():
    data = {
        "results": {"arc": {"alias": "arc", "acc,none": 0.5, "acc_stderr,none": "N/A", "em,flexible": 1}},
        "date": 1.5,
        "versions": {"arc": 1.0},
    }
    read = Result.from_lm_eval(data, "x")
    assert read.tasks[TaskKey("arc")].scores == {"acc": Estimate(0.5), "em,flexible": Estimate(1.0)}
    assert read.date == "1.5"
    for wrong in ([], 3, {}, {"results": []}, {"results": {"a": 3}}):
        with pytest.raises(ValueError, match=r"x: is not a result"):
            Result.from_lm_eval(wrong, "x")


def test_several_results_are_one_with_the_configuration_of_each_task():
    both = merge({"a": result(), "b": result("probe", "runs/mine/model")})
    assert both.evaluations == {"reversal", "probe"}
    assert both.of("probe").evaluations == {"probe"}
    configs = both.to_lm_eval()["configs"]
    assert configs["probe/a/b/same/name"]["model_path"] == "runs/mine/model"
    assert both.warnings == ["few: it is"]
    assert Result.from_lm_eval(both.to_lm_eval(), "x") == both
    assert merge({"again": both}) == both
    assert result("probe", "runs/mine/model").model == "runs/mine"
    assert result("probe", "model").model is None


def test_a_kill_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    result().write(file)
    before = file.read_text()

    def killed(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_text(file, "half")
    assert file.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    file.write_text(before[:100])
    with pytest.raises(ValueError, match=r"a\.json: is cut short or not JSON .*; make it again"):
        Result.read(file)


def test_a_file_that_is_no_result_is_never_replaced(tmp_path):
    file, lines = tmp_path / "notes.json", tmp_path / "notes.jsonl"
    result().write(file)
    lines.write_text('{"task": "reversal/a", "fact": "b"}\n')
    for options in (coherence.Options, pass_at_k.Options, probing.Options, reversal.Options, vision.Options):
        options(out=str(file))  # its own, again
        options(out=str(tmp_path / "new.json"))
    reversal.Options(samples=str(lines))
    for content in ("my notes", '{"mine": 1}', "[]"):
        file.write_text(content)
        lines.write_text(content)
        for options in (coherence.Options, pass_at_k.Options, probing.Options, reversal.Options, vision.Options):
            with pytest.raises(ValueError, match=r"out: .*notes\.json exists and is not a result; name another file"):
                options(out=str(file))
        with pytest.raises(ValueError, match=r"samples: .*notes\.jsonl exists and does not hold questions"):
            reversal.Options(samples=str(lines))
        assert file.read_text() == lines.read_text() == content


def test_a_page_replaces_a_page_and_nothing_else(tmp_path):
    file = tmp_path / "a.json"
    result().write(file)
    page = write_report([file], tmp_path / "out" / "mine.html")
    assert write_report([file], page) == page
    page.write_text("<title>my own page</title>")
    with pytest.raises(ValueError, match=r"mine\.html: exists and is not a page of latentlm report"):
        write_report([file], page)
    page.unlink()
    with pytest.raises(ValueError, match=r"mine-reversal\.png: a picture of the page would overwrite it"):
        write_report([file], page)
    assert not page.exists()
