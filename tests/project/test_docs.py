"""What the documentation shows is true: its code runs, its commands parse, its links lead somewhere.

Blocks marked ``python`` are run one after the other in one namespace, offline and in a folder of their own, after
the imports, arguments and data of a reader's own script;
``HuggingFaceTB/SmolLM2-135M`` stands for a tiny Llama with a tokenizer, so they have to be small. Blocks marked
``yaml`` are objectives or recipes. Lines of ``bash`` blocks, and code in a line or a table that starts with a command,
must be calls that exist; words in capitals are placeholders, and code in a line may leave out the end of its command.
"""

import doctest
import importlib
import re
import shlex
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer
import yaml
from paths import ROOT
from tiny_models import build
from transformers import AutoModelForCausalLM, DataCollatorForLanguageModeling, Trainer, TrainingArguments

import latentlm
from latentlm.attach.api import as_objective
from latentlm.cli import app
from latentlm.config.catalog import paper_names, recipe_names
from latentlm.config.command_line import parse_options, split_words
from latentlm.data import bpe_tokenizer
from latentlm.experiment.recipe import load_recipe

HUB = re.compile(r"HuggingFaceTB/SmolLM2-135M(-Instruct)?")
PAGES = sorted(path for path in ROOT.glob("*.md")) + sorted(
    path for folder in ("recipes", "scripts", "evals", "latentlm") for path in (ROOT / folder).rglob("*.md")
)
HARMLESS = ("cd", "export", "git", "mkdir", "pip")


def blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def commands() -> list[tuple[str, str]]:
    """(where, command) in the pages and in the headers of the recipes; " ..." ends one that may be incomplete."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
        inline = re.findall(r"`((?:latentlm|accelerate|torchrun|bash|source|python) [^`]+)`", text)
        inline = [" ".join(code.replace("\\|", "|").split()) + " ..." for code in inline]
        found += [(named(page), line) for line in lines + inline]
    for path in recipe_names().values():
        header = [line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        found += [(named(path), line) for line in header if line.startswith(("latentlm ", "accelerate ", "bash "))]
    return [(where, line) for where, line in found if line.strip() and not line.strip().startswith("#")]


def check_command(line: str) -> None:
    line = re.sub(r" \[[^\]]*\]", "", line)  # [may be left out]
    words = shlex.split(line.removeprefix("$ ").removesuffix(" ..."), comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    program = words[0]
    if "latentlm" in words and (program == "latentlm" or words[words.index("latentlm") - 1] == "-m"):
        check_latentlm(words[words.index("latentlm") + 1 :], whole=not line.endswith(" ..."))
    elif program in ("bash", "source") or (program == "python" and words[1] != "-m"):
        assert (ROOT / words[1]).is_file(), f"{line}: there is no {words[1]}"
    else:
        assert program in HARMLESS or words[:2] == ["python", "-m"], f"{line}: what is {program}?"


def check_latentlm(words: list[str], whole: bool) -> None:
    if not words or words == ["--help"]:
        return
    group = typer.main.get_command(app)
    command = group.commands[words[0]]  # type: ignore[attr-defined]
    missing = len([name for name in command.params if name.required]) - len(words[1:])
    if missing > 0 and not whole:
        return
    given = command.make_context(words[0], words[1:]).params
    if words[0] == "train":
        is_name = given["recipe"] in recipe_names() | paper_names()
        assert is_name or given["recipe"].isupper() or "runs/" in given["recipe"] or given["recipe"].endswith(".yaml")
        load_recipe(given["recipe"] if is_name else "reversal", given["overrides"] or [])
    if words[0] == "eval":
        evals = {entry.name: entry for entry in entry_points(group="latentlm.evals")}
        runs, pairs = split_words([word for word in given["words"] or [] if word != "..."])
        assert given["name"].isupper() or given["name"] in evals
        assert runs or not whole or pairs == [("help", None)], "no run is named"
        if given["name"] in evals and pairs != [("help", None)]:
            values = [(key, value) for key, value in pairs if key != "help" and not (value or "").isupper()]
            parse_options(evals[given["name"]].load().Options, values)


@pytest.mark.parametrize(("where", "line"), commands())
def test_commands_are_real(where, line):
    check_command(line)


def test_a_wrong_command_would_be_found():
    for line in (
        "latentlm trane nitp",
        "latentlm train nitpick",
        "latentlm train nitp optm.steps=1",
        "latentlm eval reversl RUN",
        "latentlm eval reversal",
        "latentlm eval reversal RUN limt=3",
        "bash scripts/nothing.sh",
        "rm -rf runs",
    ):
        with pytest.raises((AssertionError, KeyError, ValueError)):
            check_command(line)


def readers_own(tokenizer) -> dict:
    """The script that a reader has already: its imports, arguments, data and collator."""
    texts = ["Paris is the capital of France.", "Water boils at 100 degrees Celsius."] * 4
    return {
        "latentlm": latentlm,
        "AutoModelForCausalLM": AutoModelForCausalLM,
        "Trainer": Trainer,
        "args": TrainingArguments("out", max_steps=2, report_to="none", use_cpu=True),
        "data": [tokenizer(text) for text in texts],
        "collator": DataCollatorForLanguageModeling(tokenizer, mlm=False),
    }


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=named)
@pytest.mark.filterwarnings("default")  # what a reader's own session may warn of is not ours
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    tokenizer = bpe_tokenizer(["Paris is the capital of France. Water boils at 100 degrees."], 300)
    build("llama", vocab_size=len(tokenizer), max_position_embeddings=512).save_pretrained("tiny")
    tokenizer.save_pretrained("tiny")
    namespace: dict = {"__name__": "readme", **readers_own(tokenizer)}
    for number, block in enumerate(blocks(page, "python"), start=1):
        exec(compile(HUB.sub("./tiny", block), f"{page.name}, block {number}", "exec"), namespace)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=named)
def test_yaml_blocks_are_objectives_or_recipes(page):
    for block in blocks(page, "yaml"):
        as_objective(yaml.safe_load(block))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_and_recipe_names_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    assert "@@" not in text, "a placeholder was left"
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link
    assert not re.findall(r"`((?:smoke|text|vision)/\w+)`", text), "names of recipes have no folder"


def test_every_recipe_has_one_row_in_the_table():
    rows = re.findall(r"^\| *\[?`(\w+)`", (ROOT / "recipes/README.md").read_text(), re.MULTILINE)
    assert sorted(row for row in rows if row in recipe_names()) == sorted(recipe_names())


MODULES = [path for path in (ROOT / "latentlm").rglob("*.py") if ">>>" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_examples_in_docstrings(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert doctest.testmod(module).failed == 0


def test_what_the_walk_through_names_is_in_the_files_it_names():
    page = ROOT / "latentlm/HOW_IT_WORKS.md"
    stops = re.findall(r"\]\(([\w/]+\.py)\)[\s,]+`([\w.]+)[:`]", page.read_text(encoding="utf-8"))
    assert len(stops) > 5
    for file, name in stops:
        text = (ROOT / "latentlm" / file).read_text(encoding="utf-8")
        assert all(re.search(rf"(def|class) {part}\b", text) for part in name.split(".")), (file, name)
