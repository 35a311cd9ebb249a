import json
import math
import random
import re

import pytest
import yaml

from latentlm.report import write_report

TASKS = {
    "description_a_to_b/same/name": 0.96,
    "description_a_to_b/reverse/description": 0.02,
    "description_b_to_a/same/description": 0.71,
    "description_b_to_a/reverse/name": 0.0,
    "description_both/both/name": 0.93,
    "description_a_to_b/shortcut/description": 0.04,
}


def make_run(folder, seed, terms=("latent", "spread"), reverse_gain=0.0, steps=400):
    draw = random.Random(seed)
    folder.mkdir(parents=True)
    with (folder / "metrics.jsonl").open("w") as out:
        for step in range(0, steps, 2):
            row = {"step": step, "learning_rate": 2e-3 * min(1, step / 40) * (1 - step / steps)}
            row["data/value"] = 1.2 + 6 * math.exp(-step / 90) + draw.gauss(0, 0.12)
            for k, term in enumerate(terms):
                row[f"{term}/value"] = 0.3 + math.exp(-step / (60 + 90 * k)) + draw.gauss(0, 0.03)
                row[f"{term}/weighted"] = row[f"{term}/value"] * 0.1
                row[f"monitor/{term}/rank"] = 4 + 20 * (1 - math.exp(-step / 120)) + seed
                row[f"monitor/{term}/hit_rate"] = 0.02 + 0.5 * (step == steps - 2)
                row[f"monitor/{term}/hit_rate_shuffled"] = 0.015
                row[f"monitor/{term}/verdict"] = [] if step > 60 or k else ["low-rank-target"]
            row["loss"] = row["data/value"] + sum(row.get(f"{term}/weighted", 0) for term in terms)
            if step % 80 == 0:
                row["eval_loss"] = 1.4 + 5.5 * math.exp(-step / 90)
            out.write(json.dumps(row) + "\n")
    objective = {"data": {"weight": 1.0}, "terms": {t: {"kind": "predict", "weight": 0.1 * (seed + 1)} for t in terms}}
    recipe = {
        "objective": objective,
        "data": {"source": {"kind": "facts", "seed": 0}},
        "training": {"learning_rate": 2e-3, "seed": seed},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    facts = {"command": "latentlm train recipes/text/a.yaml", "date": "2026-11-20", "commit": "0123abc"}
    (folder / "run.json").write_text(json.dumps(facts | {"versions": {"torch": "2.13.0", "transformers": "5.23.0"}}))
    (folder / "depth.json").write_text(
        json.dumps({"depth": [0, 1, 2, 3, 4], "rank": [9, 21, 30, 27, 18 + seed], "dim": 128})
    )
    results, counts = {}, {}
    for task, exact in TASKS.items():
        value = min(1.0, exact + (reverse_gain if "/reverse/" in task else 0))
        row = {"exact": value, "exact_low": max(0, value - 0.06), "exact_high": min(1, value + 0.09), "contains": value}
        row |= {} if "shortcut" in task else {"mrr": 0.2, "mrr_chance": 0.13, "delta_logp": 0.3, "delta_logp_p": 0.04}
        results[f"reversal/{task}"] = {"alias": task, **{f"{name},none": number for name, number in row.items()}}
        counts[f"reversal/{task}"] = {"original": 200, "effective": 200, "facts": 50, "ranked": 100, "candidates": [50]}
    (folder / "eval").mkdir()
    (folder / "eval" / "reversal.json").write_text(json.dumps({"results": results, "n-samples": counts}))
    return folder


def test_page_is_whole_in_itself(tmp_path):
    runs = [make_run(tmp_path / "plain", 0, terms=()), make_run(tmp_path / "latent", 1, reverse_gain=0.5)]
    page = write_report(runs, tmp_path / "out" / "compare.html")
    text = page.read_text()
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "compare-depth.png",
        "compare-losses.png",
        "compare-reversal.png",
        "compare-scores.json",
        "compare.html",
    ]
    assert text.count("data:image/png;base64,") == 3
    found = text[text.index("Own target found</h2>") :]
    assert re.search(r"latent.*?<td>2\.0.*?<td>52\.0.*?<td>1\.5", found[: found.index("</table>")], re.DOTALL)
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)
    assert "class=missing" not in text.replace("class=missing><span class=dot", "")
    for said in (
        "objective.terms.latent.weight",
        "0123abc",
        "52.0 <small>[46, 61]</small>",
        "versions.torch",
        "(low-rank-target at step 0)",
    ):
        assert said in text
    assert text.index("0.0 <small>[0, 9]</small>*") > text.index("71.0 <small>[65, 80]</small>")
    assert "choice, %" not in text
    assert "of four, %" not in text
    assert write_report(runs[:1], tmp_path / "single") == tmp_path / "single" / "report.html"


def test_missing_parts_are_named_with_their_command(tmp_path):
    run = tmp_path / "short <run> $1$"
    run.mkdir()
    lines = [json.dumps({"step": step, "loss": value}) for step, value in ((0, 3.0), (1, 2.0), (1, 1.5), (2, math.nan))]
    (run / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 3, "lo']))
    text = write_report([run], tmp_path / "out").read_text()
    for file in ("recipe.yaml", "run.json", "depth.json", "eval/reversal.json"):
        assert f"short &lt;run&gt; $1$ has no {file}. Make it with" in text
    assert "No monitor was on" in text
    assert "<td>nan</td>" in text


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no metrics\.jsonl"):
        write_report([tmp_path], tmp_path / "out")
    with pytest.raises(ValueError, match="runs: none"):
        write_report([], tmp_path / "out")
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "loss": 1}\nbroken\n{"step": 1}\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        write_report([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_called_alike_are_told_apart(tmp_path):
    runs = [make_run(tmp_path / name / "run", 0, steps=20) for name in ("one", "two")]
    text = write_report(runs, tmp_path / "out").read_text()
    assert "one/run" in text
    assert "two/run" in text
    assert "the recipes are equal" in text


def rates(name, value):
    return {name: value, f"{name}_stderr": 0.02, f"{name}_low": value - 0.05, f"{name}_high": value + 0.06}


def write_reversal(path, tasks, warnings=()):
    """A result file as `latentlm eval reversal` writes it."""
    rows = {
        f"reversal/{task}": {"alias": task, **{f"{key},none": value for key, value in scores.items()}}
        for task, scores in tasks.items()
    }
    count = {"original": 40, "effective": 40, "facts": 20, "ranked": 20, "ranked_facts": 20, "candidates": [20]}
    result = {"results": rows, "versions": dict.fromkeys(rows, 2), "n-samples": dict.fromkeys(rows, count)}
    path.write_text(json.dumps(result | {"warnings": list(warnings)}))
    return path


def test_choices_stand_beside_what_is_written(tmp_path):
    known = rates("exact", 0.0) | rates("contains", 0.0) | rates("acc", 0.91) | {"acc_chance": 0.25}
    guessed = known | rates("acc", 0.27)
    ranked = rates("exact", 0.3) | rates("contains", 0.3) | rates("mrr", 0.4) | {"mrr_chance": 0.18}
    ranked |= rates("delta_logp", 1.5) | rates("mcq", 0.62) | {"mcq_chance": 0.25}
    tasks = {"bias_choice/same/name": known, "bias_choice/reverse/description": guessed, "chain/reverse/next": ranked}
    text = write_report([write_reversal(tmp_path / "a.json", tasks)], tmp_path / "out").read_text()
    assert "91.0 <small>[86, 97]</small> (25.0)" in text
    assert "0.400 <small>[0.35, 0.46]</small> (0.180)" in text
    assert "+1.50 <small>[+1.45, +1.56]</small>" in text
    assert "62.0 <small>[57, 68]</small>" in text
    assert "(25.0)*" not in text  # the likeliest option is right in the trained direction: learned
    known |= rates("acc", 0.5)
    text = write_report([write_reversal(tmp_path / "a.json", tasks)], tmp_path / "out").read_text()
    assert "27.0 <small>[22, 33]</small> (25.0)*" in text


def test_questions_with_options_are_not_pooled_with_others(tmp_path):
    written = rates("exact", 0.8) | rates("contains", 0.8)
    choice = rates("exact", 0.0) | rates("contains", 0.0) | rates("acc", 0.6)
    file = write_reversal(tmp_path / "a.json", {"chain/same/next": written, "star_graph/same/path": choice})
    text = write_report([file], tmp_path / "out").read_text()
    overview = text[text.index('id="overview"') : text.index('id="reversal"')]
    cells = re.findall(r"<td>([^<]*)</td>", overview)
    assert cells == ["80.0", "-", "60.0", "-"]


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"results": []}', '{"results": {"a": 3}}', "{"])
def test_a_file_without_results_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "eval").mkdir()
    for file, given in ((tmp_path / "a.json",) * 2, (tmp_path / "eval" / "a.json", tmp_path)):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"a\.json: is (not a result|cut short or not JSON)") as error:
            write_report([given], tmp_path / "out")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nope\.json: no such file: name a result file"):
        write_report([tmp_path / "nope.json"], tmp_path / "out")


def test_rows_that_lack_scores_stand_with_the_others(tmp_path):
    rows = {"reversal/short": {"exact,none": 0.5}, "probe/tense/high": {"acc,none": 0.75}}
    (tmp_path / "a.json").write_text(json.dumps({"results": rows}))
    text = write_report([tmp_path / "a.json"], tmp_path / "out").read_text()
    others = text[text.index('id="other-scores"') :]
    assert all(said in others for said in ("reversal/short", "0.5", "probe/tense/high", "0.75"))
