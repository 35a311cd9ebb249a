"""The report's sections on what lies inside: any folder with results, or result files, side by side."""

import json
import math
import re

import pytest

from latentlm.report import write_report
from latentlm.report.run import read_runs


def probe_result(shift=0.0, depths=7, warnings=()):
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
    return {"results": results, "warnings": list(warnings)}


def coherence_result(cross):
    square = [[0.95 if i == j else cross for j in range(4)] for i in range(4)]
    row = {"crs,none": cross / 0.95, "crs_stderr,none": 0.03, "alias": "x", "note": "words"}
    return {"results": {"coherence/stability/category@3": row}, "transfer": {"category@3": square}}


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
    assert names == ["page-probe.png", "page-profiles.png", "page-transfer.png", "page.html"]
    text = page.read_text()
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)
    assert "No monitor was on" not in text
    assert "metrics.jsonl" not in text
    assert "plain: tense: few sentences" in text
    assert "95.0 <small>[91, 98]</small>" in text
    assert "90.0 <small>[81, 97]</small>" in text
    assert "0.9474 <small>&plusmn; 0.0588</small>" in text
    for title in ("Probes", "Transfer of readouts", "Other scores"):
        assert f"<h2>{title}</h2>" in text
    assert "<h2>Losses</h2>" not in text


def test_gain_is_zero_at_chance_and_the_best_depth_the_shallowest(tmp_path):
    file = write(tmp_path / "a.json", probe_result())
    probe = read_runs([file])[0].probes[0]
    assert probe.depths == list(range(7))
    assert probe.best() == 3
    assert probe.gain()[3] == pytest.approx(0.9)
    probe.scores["acc"][:] = [0.4] * 7
    assert probe.gain() == [0.0] * 7
    assert probe.best() == 0


def test_what_holds_no_results_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no eval/\*\.json"):
        write_report([tmp_path], tmp_path / "out")
