"""The command line as a new user meets it, in an empty folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from run_cli import FEW, TINY, latentlm

from latentlm.config.catalog import experiment_names, method_names, model_names, paper_names

TRAIN = ["train", "smoke_text", "training.max_steps=3"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)


def loaded_by(*codes: str) -> list[set[str]]:
    """Modules that are there after each of `codes`, one after the other in a fresh process."""
    lines = "\n".join(f"{code}\nprint(*sys.modules, file=told)" for code in codes)
    done = python("-c", f"import sys\ntold = open('modules', 'w')\n{lines}")
    assert done.returncode == 0, done.stderr
    return [set(line.split()) for line in Path("modules").read_text().splitlines()]


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
    assert listed == [*method_names(), *experiment_names(), *paper_names(), *model_names()]
    heads = [line.partition(":")[0] for line in lines if not line.startswith("  ")]
    assert heads == ["methods for text", "methods for images", "experiments", "papers", "models"]
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
    package, function = loaded_by("import latentlm, latentlm.cli", "from latentlm import get_latent_model")
    assert not package & {"torch", "transformers", "peft", "trl", "datasets"}
    assert not function & {"peft", "trl", "transformers.trainer", "datasets"}


@pytest.mark.slow
def test_a_mistake_costs_no_heavy_import():
    mistakes = [["train", "smoke_txt"], ["eval", "reversal", "nowhere"], ["train", "smoke_text", "optm.steps=3"]]
    name, run, key = loaded_by(
        *(
            f"sys.argv = ['latentlm', *{words!r}]\nfrom latentlm.cli import main\ntry: main()\nexcept SystemExit: pass"
            for words in mistakes
        )
    )
    assert not name & {"torch", "transformers"}
    assert not run & {"torch", "transformers"}
    assert "torch" in key  # the parts are its modules
    assert not key & {"transformers", "datasets", "peft", "trl", "huggingface_hub"}


@pytest.mark.slow
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
    """What it says in a training, and nothing else, is tested on the wheel."""
    done = python("-m", "latentlm", "train", "smoke_txt")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith("latentlm: "), done.stderr


@pytest.mark.slow
def test_two_processes_write_one_run():
    launch = [
        "-m",
        "torch.distributed.run",
        "--standalone",
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


@pytest.fixture
def without(monkeypatch):
    """As if a package were not installed: the evaluations are imported anew, and are afterwards what they were."""
    homes = ["latentlm_evals"]

    def loaded() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] in homes]

    def block(package: str) -> None:
        homes.append(package)
        for name in loaded():
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)

    yield block
    for name in loaded():
        del sys.modules[name]


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("sklearn", ["eval", "coherence", "run"], "evals"),
        ("sklearn", ["eval", "vision", "run"], "evals"),
        ("jinja2", ["report", "run"], "report"),
        ("matplotlib", ["report", "run"], "report"),
    ],
)
def test_an_extra_that_is_not_installed_is_named(package, words, extra, without):
    Path("run/eval").mkdir(parents=True)
    Path("run/config.json").write_text("{}")
    results = {"results": {"reversal_test": {"exact_match,none": 0.5}}}
    Path("run/eval/reversal.json").write_text(json.dumps(results))
    without(package)
    told = latentlm(*words)
    assert (told.code, told.err.count("\n")) == (2, 1), told.err
    assert told.err.startswith(f"latentlm: {package} is ")
    assert f"pip install 'latentlm[{extra}]'" in told.err


def test_what_needs_no_extra_does_without(without):
    without("sklearn")
    for words in (["eval", "coherence", "--help"], ["eval", "vision", "--help"], ["recipes"]):
        assert latentlm(*words).code == 0


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
