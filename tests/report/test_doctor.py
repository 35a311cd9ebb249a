"""The doctor: every constructed failure is named with a fix, healthy runs pass, a wrong folder is one line."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from run_cli import latentlm
from tiny_recipes import tiny

from latentlm.experiment.callbacks import Bar
from latentlm.experiment.recipe import load_recipe
from latentlm.experiment.train import train
from latentlm.objective.objective import Objective
from latentlm.report import write_report
from latentlm.report.doctor import FIXES, MEANINGS, examine, read_run

STEPS = (1, 50, 100, 150, 200)
FALLING = [0.4, 0.3, 0.1, 0.02, 0.01]


def write(folder: Path, total=200, depth=(9.0, 12.0, 8.0), monitor_every=50, **series) -> str:
    """A run folder whose metrics are given as one value for each of STEPS, or one for all of them."""
    good = {
        "loss": [2.0, 1.5, 1.0, 0.7, 0.5],
        "learning_rate": [0.0, 1e-3, 8e-4, 4e-4, 0.0],
        "term/value": [1.0, 0.8, 0.6, 0.5, 0.4],
        "term/weighted": [0.5, 0.4, 0.3, 0.25, 0.2],
        "monitor/term/verdict": ["no-better-than-random-pairing", "ok", "ok", "ok", "ok"],
        "monitor/term/baseline_loss": 1.1,
        "monitor/term/rank": 10.0,
        "monitor/term/target_rank": [12.0, 11.0, 9.0, 8.0, 8.0],
        "monitor/term/cosine_margin": [0.0, 0.2, 0.3, 0.4, 0.5],
        "monitor/term/grad_ratio": [0.2, 0.1, 1e-4, 1e-5, 1e-6],
        "monitor/slow copy/momentum": [0.99, 0.99, 0.995, 0.999, 1.0],
        "monitor/slow copy/lag": [0.0, 0.01, 0.02, 0.02, 0.01],
    }
    names = {"w_": "term/weighted", "v_": "term/value", "verdict": "monitor/term/verdict", "loss": "loss"}
    names |= {"lr": "learning_rate", "momentum": "monitor/slow copy/momentum", "lag": "monitor/slow copy/lag"}
    for key, values in series.items():
        good[names.get(key, f"monitor/term/{key}")] = values
    folder.mkdir()
    rows = [
        {"step": step} | {name: value[k] if isinstance(value, list) else value for name, value in good.items()}
        for k, step in enumerate(STEPS)
    ]
    rows = [{name: value for name, value in row.items() if value is not None} for row in rows]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(
        yaml.safe_dump({"objective": {"monitor_every": monitor_every}, "training": {"max_steps": total}})
    )
    if depth:
        (folder / "depth.json").write_text(json.dumps({"depth": [0, 1, 2], "rank": depth, "dim": 32}))
    return str(folder)


def test_every_finding_has_a_fix():
    assert MEANINGS.keys() == FIXES.keys()


def test_a_healthy_run_passes_whatever_it_was_at_first(tmp_path):
    told = latentlm("doctor", write(tmp_path / "run"))
    assert told.code == 0, told
    assert told.out.startswith(f"{tmp_path / 'run'}: healthy (step 200 of 200)\n")
    (row,) = [line.split() for line in told.out.splitlines() if line.split()[:1] == ["term"] and "ok" in line]
    assert row == ["term", "ok", "1", "0.4", "1.1", "10", "8", "0.5", "1e-06"]


@pytest.mark.parametrize(
    ("series", "place", "verdict", "step"),
    [
        *(({"verdict": name}, "term", name, 200) for name in ("one-class", "constant-target", "low-rank", "dead-head")),
        ({"verdict": "no-better-than-random-pairing"}, "term", "no-better-than-random-pairing", 200),
        ({"v_": [1.0, 0.8, float("nan"), float("nan"), 0.1]}, "term", "not-finite", 100),
        ({"loss": [2.0, float("inf"), 1.0, 1.0, 1.0]}, "run", "not-finite", 50),
        ({"grad_ratio": 2e-4}, "term", "ignored", 200),
        ({"baseline_loss": 0.03}, "term", "worse-than-constant", 200),
        ({"v_": 0.7}, "term", "flat", 200),
        ({"v_": 0.0, "w_": 0.0, "verdict": None}, "term", "empty", 200),
        ({"lr": 0.0}, "run", "learning-rate-0", 200),
        ({"momentum": 1.0}, "slow copy", "teacher-not-updating", 200),
        ({"lag": 0.0}, "slow copy", "student-not-moving", 200),
        ({"depth": (9.0, 4.0, 1.1)}, "depth 2", "collapsed-depth", 200),
        (
            {
                "v_": [0.5, 0.3, 0.1, 0.02, 0.01],
                "baseline_loss": [0.4, 0.3, 0.1, 0.02, 0.011],
                "target_rank": [9, 8, 6, 4, 3],
            },
            *("term", "collapsing", 200),
        ),
    ],
)
def test_a_constructed_failure_is_named_and_nothing_else(tmp_path, series, place, verdict, step):
    told = latentlm("doctor", write(tmp_path / "run", **series))
    assert told.code == 1, told
    lines = told.out.splitlines()
    assert lines[0] == f"{tmp_path / 'run'}: not healthy (step 200 of 200)"
    assert lines[1] == f"  {place}: {verdict} at step {step}: {MEANINGS[verdict]}. Try: {FIXES[verdict]}."
    assert not any(" at step " in line for line in lines[2:])


@pytest.mark.parametrize(
    "series",
    [
        {"v_": 0.0, "w_": 0.0},  # a hinge that is met has readings
        {"w_": 0.0, "grad_ratio": 0.0},  # a term that is off is asked nothing
        {"baseline_loss": FALLING, "v_": [0.3, 0.2, 0.08, 0.015, 0.008]},  # targets that shrink but keep their rank
        {"target_rank": [9.0, 8.0, 6.0, 4.0, 3.0]},  # targets that lose rank but stay apart
        {"depth": (1.0, 1.2, 8.0)},  # huge coordinates inside a pretrained network
        {"verdict": "no-better-than-random-pairing", "monitor_every": 500},  # there was one reading only
        {"momentum": None, "lag": None, "cosine_margin": None},
    ],
)
def test_what_only_looks_like_a_failure_passes(tmp_path, series):
    assert latentlm("doctor", write(tmp_path / "run", **series)).code == 0


def test_a_run_that_is_going_on_and_one_that_nobody_watched(tmp_path):
    going = write(tmp_path / "going", depth=None)
    with (tmp_path / "going/metrics.jsonl").open("a") as file:
        file.write('{"step": 210, "lo')
    told = latentlm("doctor", going)
    assert (told.code, told.out.splitlines()[0]) == (0, f"{going}: healthy (step 200 of 200, not finished)")
    unseen = {name: None for name in ("verdict", "baseline_loss", "rank", "target_rank", "cosine_margin", "grad_ratio")}
    told = latentlm("doctor", write(tmp_path / "unseen", **unseen))
    assert told.code == 0
    assert "only the losses of these were watched: term; set objective.monitor_every to a number of steps" in told.out


def test_findings_of_several_terms_are_one_line_and_runs_follow_each_other(tmp_path):
    sick = write(tmp_path / "sick", verdict="one-class, no-better-than-random-pairing", lr=0.0)
    told = latentlm("doctor", write(tmp_path / "well"), sick)
    assert told.code == 1
    assert [line.split(": ")[1][:11] for line in told.out.splitlines() if line.startswith(str(tmp_path))] == [
        "healthy (st",
        "not healthy",
    ]
    assert "term  one-class, no-better-than-random-pairing" in told.out


def test_wrong_folders_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("young").mkdir()
    Path("young/metrics.jsonl").write_text("")
    for words, line in [
        (["nowhere"], "nowhere: has no metrics.jsonl; name a run folder made by latentlm train"),
        (["empty"], "empty: has no metrics.jsonl; name a run folder made by latentlm train"),
        (["young"], "young: has logged nothing yet; look again after training.logging_steps steps"),
        ([], "Missing argument 'runs'."),
    ]:
        assert latentlm("doctor", *words) == (2, "", f"latentlm: {line}\n")


@pytest.mark.slow
def test_two_crop_kl_collapses_and_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    longer = [
        "training.max_steps=60",
        "training.warmup_steps=0",
        "training.lr_scheduler_type=constant_with_warmup",
        "data.source.num_train=480",
        "training.output_dir=run",
    ]
    run = train(load_recipe("toy_kl", [*tiny("toy_kl"), *longer]))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["monitor/agree/verdict"] == "ok"
    assert lines[-1]["loss"] < 1e-2 * lines[0]["loss"]
    told = latentlm("doctor", "run")
    assert told.code == 1
    assert re.search(r"^  agree: one-class at step \d+: all guesses name one", told.out, re.MULTILINE)


@pytest.mark.slow
def test_a_contrast_between_the_same_crops_is_healthy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = [
        "training.max_steps=12",
        "training.warmup_steps=0",
        "data.source.num_train=128",
        "training.per_device_train_batch_size=32",
        "training.output_dir=run",
    ]
    train(load_recipe("simclr", [*tiny("simclr"), *few]))
    told = latentlm("doctor", "run")
    assert told.code == 0, told.out
    assert "run: healthy (step 12 of 12)" in told.out


@pytest.mark.parametrize(
    ("series", "monitor_every", "failures"),
    [
        ({"verdict": "no-better-than-random-pairing"}, 50, ["no-better-than-random-pairing"]),
        ({"verdict": "no-better-than-random-pairing"}, 200, []),  # one reading says nothing yet
        ({"verdict": "no-better-than-random-pairing", "w_": 0.0}, 50, []),  # nor does a term that is still off
        ({"verdict": "one-class", "baseline_loss": 0.03}, 200, ["one-class"]),
        ({"verdict": "ok", "baseline_loss": 0.03}, 50, ["worse-than-constant"]),
        ({"verdict": "ok", "baseline_loss": 0.03}, 500, []),
    ],
)
def test_the_last_line_of_a_run_and_the_doctor_say_the_same(tmp_path, capsys, series, monitor_every, failures):
    folder = Path(write(tmp_path / "run", monitor_every=monitor_every, **series))
    bar = Bar(Objective(monitor_every=monitor_every), folder)
    state = SimpleNamespace(global_step=0, max_steps=200, is_world_process_zero=True)
    bar.on_train_begin(None, state, None, model=torch.nn.Linear(1, 1))
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        state.global_step = row.pop("step")
        bar.on_log(None, state, None, logs=row)
    bar.on_train_end(None, state, None)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("monitor: ")]
    assert said == [f"monitor: term ended as {', '.join(failures)}; see latentlm doctor {folder}"] * bool(failures)
    found = [finding.verdict for finding in examine(read_run(folder))]
    assert found == failures


def test_files_that_a_kill_has_cut_are_named_and_left_out(tmp_path):
    folder = write(tmp_path / "run")
    for name in ("depth.json", "recipe.yaml", "run.json"):
        file = tmp_path / "run" / name
        file.write_text('{"depth": [0, 1')
        told = latentlm("doctor", folder)
        assert told.code == 0, told
        assert f"{name} cannot be read (cut short?), so it is left out" in told.out


def test_a_verdict_of_another_version_is_shown_and_no_traceback(tmp_path):
    folder = write(tmp_path / "run", verdict="some-old-name")
    told = latentlm("doctor", folder)
    assert told.code == 1
    assert "term: some-old-name at step 200: a verdict of another version of latentlm" in told.out
    page = write_report([tmp_path / "run"], tmp_path / "out").read_text(encoding="utf-8")
    assert "some-old-name at step 200" in page
