"""The command line as a new user meets it, in an empty folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from run_cli import FEW, TINY, latentlm

from latentlm.config.catalog import experiment_names, method_names, model_names

TRAIN = ["train", "smoke_text", "training.max_steps=3"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)


def loaded_by(code: str) -> set[str]:
    """Modules that are there after `code` has run in a fresh process."""
    done = python("-c", f"import sys\n{code}\nprint(*sys.modules)")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_no_command_shows_the_help():
    told = latentlm()
    assert (told.code, told.err) == (0, "")
    assert all(command in told.out for command in ("train", "eval", "report", "export", "recipes"))
    assert "..." not in told.out.split("Commands:")[1]  # a sentence that is cut off says nothing
    for command in ("train", "eval", "report", "export", "recipes"):
        assert latentlm(command, "--help").out.startswith(f"Usage: latentlm {command}")


def test_recipes_are_listed_with_what_they_are():
    lines = latentlm("recipes").out.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("  ")]
    assert listed == [*method_names(), *experiment_names(), *model_names()]
    heads = [line.partition(":")[0] for line in lines if not line.startswith("  ")]
    assert heads == ["methods for text", "methods for images", "experiments", "models"]
    assert all(len(line) > 40 for line in lines if line.startswith("  "))


def test_a_reader_that_has_seen_enough_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "latentlm", "recipes"], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert done.stderr == b""


def test_the_package_imports_nothing_heavy():
    heavy = {"torch", "transformers", "peft", "trl", "datasets"}
    assert not loaded_by("import latentlm, latentlm.cli") & heavy
    names = {"peft", "trl", "transformers.trainer", "datasets"}
    assert not loaded_by("from latentlm import get_latent_model") & names


def test_a_mistake_costs_no_heavy_import():
    def after(*words: str) -> set[str]:
        return loaded_by(
            f"sys.argv = ['latentlm', *{words!r}]\nfrom latentlm.cli import main\ntry: main()\nexcept SystemExit: pass"
        )

    assert not after("train", "smoke_txt") & {"torch", "transformers"}
    assert not after("eval", "reversal", "nowhere") & {"torch", "transformers"}
    recipe = after("train", "smoke_text", "optm.steps=3")
    assert "torch" in recipe  # the parts are its modules
    assert not recipe & {"transformers", "datasets", "peft", "trl", "huggingface_hub"}


def test_two_runs_side_by_side():
    for name, seed in (("a", 0), ("b", 1)):
        told = latentlm(
            "train",
            "reversal",
            TINY,
            FEW,
            "training.max_steps=3",
            f"training.output_dir={name}",
            f"training.seed={seed}",
        )
        assert (told.code, told.out) == (0, f"{name}\n")
    told = latentlm("eval", "reversal", "a", "b")
    assert told.code == 0
    assert all(row in told.out for row in ("description_a_to_b", "│   a ", "│   b ", "Reversal: exact match, %"))
    assert max(map(len, told.out.splitlines())) <= 100
    assert {"results", "versions"} < json.loads(Path("a/eval/reversal.json").read_text()).keys()
    told = latentlm("report", "a", "b")
    assert (told.code, told.out) == (0, "a/report.html\n")
    assert "description_a_to_b" in Path("a/report.html").read_text()
    told = latentlm("export", "a", "plain")
    assert (told.code, told.out, told.err) == (0, "plain\n", "")
    told = latentlm("eval", "reversal", "plain", "data=a", "out=plain.json")
    assert told.code == 0, told
    ours, theirs = (json.loads(Path(name).read_text())["results"] for name in ("a/eval/reversal.json", "plain.json"))
    assert ours == theirs


def test_the_module_is_the_command():
    done = python("-m", "latentlm", *TRAIN, "training.output_dir=run", "training.save_strategy=no")
    assert (done.returncode, done.stdout) == (0, "run\n"), done.stderr
    assert all(line.startswith(("training ", "step ", "monitor: ")) for line in done.stderr.splitlines()), done.stderr
    assert json.loads(Path("run/run.json").read_text())["command"].startswith("latentlm train smoke_text")


@pytest.mark.slow
def test_two_processes_write_one_run():
    launch = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "-m",
        "latentlm",
        *TRAIN,
        "training.output_dir=run",
    ]
    done = python(*launch)
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line)["step"] for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]
    assert latentlm("eval", "reversal", "run").code == 0


def without(package: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command where a package is not installed."""
    return python(
        "-c",
        f"import sys\nsys.modules[{package!r}] = None\nsys.argv = ['latentlm', *{words!r}]\n"
        "from latentlm.cli import main\nmain()",
    )


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("sklearn", ["eval", "coherence", "run"], "evals"),
        ("sklearn", ["eval", "vision", "run"], "evals"),
        ("jinja2", ["report", "run"], "report"),
        ("matplotlib", ["report", "run"], "report"),
    ],
)
def test_an_extra_that_is_not_installed_is_named(package, words, extra, tmp_path):
    (tmp_path / "run" / "eval").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{}")
    results = {"results": {"reversal_test": {"exact_match,none": 0.5}}}
    (tmp_path / "run" / "eval" / "reversal.json").write_text(json.dumps(results))
    done = without(package, *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"latentlm: {package} is ")
    assert f"pip install 'latentlm[{extra}]'" in done.stderr


def test_what_needs_no_extra_does_without():
    for words in (["eval", "coherence", "--help"], ["recipes"]):
        assert without("sklearn", *words).returncode == 0


def test_export_data_writes_a_generated_set(tmp_path):
    told = latentlm("export-data", "reversal", str(tmp_path / "set"), "data.source.kind=chain", "data.source.seed=3")
    assert (told.code, told.err) == (0, "")
    assert [line.split()[1] for line in told.out.splitlines()] == ["1500", "500"]
    told = latentlm("export-data", "reversal", "data.source.seed=3")  # the folder was forgotten
    assert (told.code, told.err.count("\n")) == (2, 1)


def test_no_command_replaces_a_file_that_it_has_not_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "a.json").write_text(json.dumps({"results": {"a": {"acc,none": 0.5}}}))
    (tmp_path / "config.json").write_text("{}")
    for name in ("thesis.tex", "notes.html"):
        (tmp_path / name).write_text("mine")
    for words, line in (
        (["eval", "reversal", ".", "out=thesis.tex"], "out: thesis.tex was not written by an evaluation"),
        (
            ["eval", "reversal", ".", "samples=thesis.tex"],
            "samples: thesis.tex was not written by an evaluation",
        ),
        (["report", ".", "--out", "notes.html"], "notes.html was not written by latentlm report"),
    ):
        told = latentlm(*words)
        assert (told.code, told.err.count("\n")) == (2, 1)
        assert line in told.err
    assert {(tmp_path / name).read_text() for name in ("thesis.tex", "notes.html")} == {"mine"}
    for _ in range(2):  # its own page it writes again
        assert latentlm("report", ".").code == 0
