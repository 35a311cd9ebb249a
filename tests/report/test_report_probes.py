"""The report's sections on what lies inside: any folder with results, or result files, side by side."""

import json
import math
import re

import pytest
from latentlm_evals.coherence.report import transfer_maps
from latentlm_evals.probing.task_names import Profile, profiles

from latentlm.report import write_report
from latentlm.report.figures.maps import square_maps
from latentlm.report.run_record import read_runs
from latentlm.result import Estimate, Result, Task

CONTEXTS = ["subject", "object", "late", "code"]
UNKNOWN = "unknown_words: in 6 of 6 questions the tokenizer does not know a word"
UNREADABLE = "stability/number@3: unreadable: CRS is left out"


def probe_result(shift=0.0, depths=7, warnings=(), model=None):
    results = {}
    for place, name in enumerate(("tense", "number", "order shift")):
        for depth in range(depths):
            acc = 0.5 + 0.45 * math.exp(-((depth - 3 - place + shift) ** 2) / 6)
            row = {
                "acc": acc,
                "acc_low": acc - 0.04,
                "acc_high": acc + 0.03,
                "chance": 0.5,
                "shuffled": 0.51,
                "random_init": 0.6,
            }
            row |= {"selectivity": 0.2, "mlp_gap": 0.01, "compression": 1.5, "pca_k": 4, "pls_k": None}
            task = f"probe/{name}/{depth}"
            results[task] = {"alias": task, **{f"{key},none": value for key, value in row.items()}}
        picked = {"acc,none": 0.9, "acc_low,none": 0.81, "acc_high,none": 0.97, "depth,none": 3.0}
        results[f"probe/{name}/chosen"] = picked | {"chance,none": 0.5}
    return {
        "results": results,
        "warnings": list(warnings),
        "config": {"model": model, "model_path": model, "at": "last"},
    }


def coherence_result(cross, model=None, **more):
    square = [[0.95 if i == j else cross for j in range(4)] for i in range(4)]
    row = {"crs,none": cross / 0.95, "crs_stderr,none": 0.03, "alias": "x"}
    config = {"model": "LlamaForCausalLM", "model_path": model}
    rows = {"coherence/stability/category@3": row}
    return {"results": rows, "transfer": {"category@3": square}, "config": config} | more


def reversal_result(exact, model=None, **more):
    row = {f"{key},none": exact for key in ("exact", "exact_low", "exact_high", "contains")}
    rows = {"reversal/chain/same/next": row}
    counts = {task: {"original": 6, "facts": 6} for task in rows}
    better = {task: {"exact": True} for task in rows}
    config = {"model": "LlamaForCausalLM", "model_path": model}
    return {"results": rows, "n-samples": counts, "higher_is_better": better, "config": config} | more


def write(path, result):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result))
    return path


def test_checkpoints_and_files_stand_side_by_side(tmp_path):
    plain = tmp_path / "plain"
    write(plain / "eval" / "probe.json", probe_result(warnings=["tense: few sentences"]))
    write(plain / "eval" / "coherence.json", coherence_result(0.9))
    file = write(tmp_path / "latents.json", probe_result(1.0) | {"transfer": coherence_result(0.2)["transfer"]})
    page = write_report([plain, file], tmp_path / "out" / "page.html")
    names = sorted(path.name for path in page.parent.iterdir())
    assert names == [f"page-{name}" for name in ("probe.png", "profiles.png", "scores.json", "transfer.png")] + [
        "page.html"
    ]
    text = page.read_text()
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)
    assert "No monitor was on" not in text
    assert "metrics.jsonl" not in text
    assert "plain: tense: few sentences" in text
    assert "95.0 <small>[91, 98]</small>" in text
    assert "90.0 <small>[81, 97]</small>" in text
    assert "0.9474 <small>± 0.0588</small>" in text
    for title in ("Probes", "Transfer of readouts", "Other scores"):
        assert f"<h2>{title}</h2>" in text
    assert "<h2>Losses</h2>" not in text


def test_gain_is_zero_at_chance_and_the_best_depth_the_shallowest(tmp_path):
    probe = profiles(Result.read(write(tmp_path / "a.json", probe_result())))["tense"]
    assert list(probe.depths) == list(range(7))
    assert probe.best() == 3
    assert probe.gain()[3] == pytest.approx(0.9)
    below = Task({"acc": Estimate(0.4), "chance": Estimate(0.5)})
    flat = Profile("tense", dict.fromkeys(range(7), below), Task({}))
    assert flat.gain() == [0.0] * 7
    assert flat.best() == 0


def test_what_holds_no_results_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no eval/\*\.json"):
        write_report([tmp_path], tmp_path / "out")


def test_warnings_are_told_once_whichever_evaluation_they_are_of(tmp_path):
    reversal = write(tmp_path / "reversal.json", reversal_result(0.5, warnings=[UNKNOWN]))
    coherence = write(tmp_path / "coherence.json", coherence_result(0.5, warnings=[UNREADABLE, UNREADABLE]))
    nothing = write(tmp_path / "nothing.json", {"results": {}, "warnings": ["sections are left out"]})
    said = {"reversal": UNKNOWN, "coherence": UNREADABLE, "nothing": "sections are left out"}
    for runs in ([reversal], [coherence], [nothing], [reversal, coherence, nothing]):
        text = write_report(runs, tmp_path / "out").read_text()
        for name, warning in said.items():
            assert text.count(f"{name}: {warning}") == text.count(warning) == (tmp_path / f"{name}.json" in runs)
    text = write_report([write(tmp_path / "a.json", coherence_result(0.5))], tmp_path / "out").read_text()
    assert "<h2>Warnings</h2>" not in text


def test_axes_bear_the_names_of_the_contexts(tmp_path):
    named = write(tmp_path / "named.json", coherence_result(0.5, contexts=CONTEXTS))
    numbered = write(tmp_path / "numbered.json", coherence_result(0.5))
    strange = write(tmp_path / "strange.json", coherence_result(0.5, contexts=CONTEXTS[:2]))
    maps = [transfer_maps(run.evaluated("coherence"))["category@3"] for run in read_runs([named, numbered, strange])]
    for each, names in zip(maps, (CONTEXTS, list("1234"), list("1234")), strict=True):
        assert list(each.rows) == list(each.columns) == names
    figure = square_maps([maps], "", "", "")
    for axis, each in zip(figure.axes, maps, strict=False):
        assert [label.get_text() for label in axis.get_xticklabels()] == each.columns


def test_scores_that_do_not_exist_are_dashes(tmp_path):
    row = {"t": 0.21, "t_stderr": 0.05, "u": None, "u_low": None, "one": 0.5, "one_stderr": None}
    row |= {"half": 0.7, "half_low": 0.6, "half_high": None, "nan": math.nan, "nan_stderr": 0.1}
    rows = {"coherence/binding/a@3": {f"{key},none": value for key, value in row.items()}}
    square = [[0.9, None], [math.nan, 0.9]]
    file = write(tmp_path / "a.json", {"results": rows, "transfer": {"category@3": square}})
    text = write_report([file], tmp_path / "out").read_text()
    cells = re.findall(r"<td class=text>(\w+)</td><td>(.*?)</td>", text)
    assert cells == [
        ("t", "0.21 <small>± 0.098</small>"),
        ("u", "-"),
        ("one", "0.5"),
        ("half", "0.7"),
        ("nan", "-"),
    ]


def test_files_about_one_model_are_one_run(tmp_path):
    results = {
        "r": reversal_result(0.5, "runs/mine/model", warnings=[UNKNOWN]),
        "c": coherence_result(0.5, "runs/mine/", contexts=CONTEXTS, warnings=[UNREADABLE]),
        "p": probe_result(model="./runs/mine"),
    }
    files = [write(tmp_path / f"{name}.json", result) for name, result in results.items()]
    other = write(tmp_path / "other.json", reversal_result(0.25, "runs/other/model"))
    page = write_report([files[0], other, *files[1:]], tmp_path / "out")
    assert [run.label for run in read_runs([files[0], other, *files[1:]])] == ["mine", "other"]
    whole = json.loads(page.with_name(f"{page.stem}-scores.json").read_text())
    assert list(whole["runs"]) == ["mine", "other"]
    mine = whole["runs"]["mine"]
    assert mine["results"] == {task: row for result in results.values() for task, row in result["results"].items()}
    assert mine["n-samples"] == results["r"]["n-samples"]
    assert mine["higher_is_better"] == results["r"]["higher_is_better"]
    assert mine["warnings"] == [UNKNOWN, UNREADABLE]
    for result in results.values():
        assert all(mine["configs"][task] == result["config"] for task in result["results"])


def test_the_merged_file_says_the_same_as_its_parts(tmp_path):
    parts = [reversal_result(0.5, "a/b", warnings=[UNKNOWN]), coherence_result(0.5, "a/b"), probe_result(model="a/b")]
    files = [write(tmp_path / f"{k}.json", part) for k, part in enumerate(parts)]
    merged = write_report(files, tmp_path / "out").with_name("report-scores.json")
    (before,), (after,) = read_runs(files), read_runs([merged])
    assert before.result == after.result


def test_runs_that_cannot_be_told_apart_stay_apart(tmp_path):
    def labels(**results):
        return [run.label for run in read_runs([write(tmp_path / f"{k}.json", v) for k, v in results.items()])]

    one, two, more = reversal_result(0.5, "a/b"), reversal_result(0.6, "a/b"), coherence_result(0.5, "a/b")
    assert labels(one=one, two=two, more=more) == ["one", "two", "more"]
    assert labels(one=one, more=more) == ["b"]
    assert labels(one=one, more=coherence_result(0.5, "c/b")) == ["one", "more"]
    # the folder that one was in says nothing later, nor does a class
    assert labels(one=reversal_result(0.5, "model"), more=coherence_result(0.5, ".")) == ["one", "more"]
    assert labels(one=reversal_result(0.5), more=coherence_result(0.5)) == ["one", "more"]


def test_a_page_overwrites_no_result_and_is_none_itself(tmp_path):
    file = write(tmp_path / "run" / "eval" / "reversal.json", reversal_result(0.5))
    other = write(file.with_name("page-scores.json"), reversal_result(0.5))
    with pytest.raises(ValueError, match=r"page-scores\.json: the page's scores would overwrite it"):
        write_report([file], file.with_name("page.html"))
    other.unlink()
    assert json.loads(file.read_text()) == reversal_result(0.5)
    before = read_runs([tmp_path / "run"])
    for _ in range(2):  # its own page may be written again
        write_report([file], file.parent)
        assert read_runs([tmp_path / "run"]) == before
