"""The report of ViTs: what is seen at which depth, and no question that a ViT cannot answer."""

import json

import yaml

from latentlm.report import write_report


def make_run(folder, colour):
    (folder / "eval").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5, "pixels/value": 0.5}\n')
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"objective": {"terms": {}}, "data": {"kind": "images"}}))
    rows = {"depth 0": 0.0, "depth 1": colour, "random 1": 0.25}
    results = {
        f"vision/{task}": {"alias": task, "factor/colour,none": value, "level/detail,none": value}
        for task, value in rows.items()
    }
    (folder / "eval" / "vision.json").write_text(json.dumps({"results": results}))
    return folder


def test_factors_over_depth_beside_their_floor(tmp_path):
    runs = [make_run(tmp_path / "one", 0.5), make_run(tmp_path / "two", 0.75)]
    page = write_report(runs, tmp_path / "out")
    text = page.read_text()
    assert (page.parent / "report-vision.png").stat().st_size > 5000
    vision = text[text.index('id="vision"') : text.index('id="other-scores"')]
    assert "<td>50.0</td>" in vision
    assert "<td>75.0</td>" in vision
    assert vision.count("random 1") == 2
    assert "eval/reversal.json" not in text
    assert "same direction" not in text
