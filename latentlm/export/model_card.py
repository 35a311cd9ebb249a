"""The model card of an exported folder: what it was made from and how, how well it does, and whom to cite."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from latentlm.config.catalog import read_recipe
from latentlm.config.schema import kind_of, parse
from latentlm.objective.objective import Objective
from latentlm.result import Result
from latentlm.whole_files import read_json

ARXIV = re.compile(r"arXiv[: ]\s*(\d{4}\.\d{4,5})")
USE = {
    "vision": "from transformers import AutoImageProcessor, AutoModel\n\n"
    'model = AutoModel.from_pretrained("THIS_FOLDER")\n'
    'processor = AutoImageProcessor.from_pretrained("THIS_FOLDER")',
    "transformers": "from transformers import AutoModelForCausalLM\n\n"
    'model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")',
    "peft": "from peft import AutoPeftModelForCausalLM\n\n"
    'model = AutoPeftModelForCausalLM.from_pretrained("THIS_FOLDER")',
}


def write_card(
    out: Path, run: Path, library: str, objective: dict | None, base: str | None, *, name: str, step: int | None = None
) -> None:
    """Write ``README.md`` into an exported folder from what lies in its run folder.

    Args:
        out: the exported folder.
        run: run folder, or any folder where that is not known.
        library: ``transformers`` or ``peft``.
        objective: plain data of what was trained, where the run folder does not say.
        base: name of the base model, where the run folder does not say.
        name: what the exported folder is called.
        step: of the weights, where they are not those of the run's end.
    """
    recipe = run / "recipe.yaml"
    whole: dict = read_recipe(recipe) if recipe.is_file() else {}
    objective = whole.get("objective", objective)
    base = whole.get("model", {}).get("name") or base
    source = whole.get("data", {}).get("source")
    source = source.get("path") if isinstance(source, dict) else source
    hub = [source] if source and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source) and not Path(source).exists() else None
    about = ModelCardData(
        base_model=base if base and not Path(base).exists() else None,
        datasets=hub,
        library_name=library,
        tags=["latentlm"],
    )
    parts = [
        f"---\n{about.to_yaml()}\n---",
        f"# {name}",
        f"{_start(whole, base)}, trained by latentlm. The heads are removed; it loads without latentlm.",
        f"```python\n{USE['vision' if (out / 'preprocessor_config.json').is_file() else library]}\n```",
        "## Training",
        _training(run, whole, base, step),
        *_section("## Final metrics", _table(["metric", "value"], _final(run / "metrics.jsonl", step))),
        *_section("## Evaluations", _table(["task", "metric", "value", "standard error"], _scores(run / "eval"))),
        *_citations(objective),
        *_section("## Recipe", f"```yaml\n{yaml.safe_dump(whole, sort_keys=False, width=120)}```" if whole else ""),
    ]
    ModelCard("\n\n".join(parts) + "\n").save(out / "README.md")


def sources(part: Any) -> Iterator[tuple[str, str]]:
    """(kind, source) of a part and of all parts in it: the line ``Source:`` of a docstring, or the part's own field."""
    if isinstance(part, dict | list | tuple):
        for each in part.values() if isinstance(part, dict) else part:
            yield from sources(each)
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        told = re.search(r"^ *Source: +(.+?)(?=^ *[A-Z][\w ]*: |\n\n|\Z)", part.__doc__ or "", re.M | re.S)
        own = getattr(part, "source", None)
        text = own if isinstance(own, str) else told and told[1].partition("Differs:")[0]
        if text:
            yield kind_of(type(part)), " ".join(text.split()).rstrip(".")
        for field in dataclasses.fields(part):
            yield from sources(getattr(part, field.name))


def _start(recipe: dict, base: str | None) -> str:
    """What the training began with; a network is from scratch where the recipe says so, not where nobody says."""
    return f"`{base}`" if base else "A network from scratch" if recipe else "A network whose base is not recorded"


def _training(run: Path, recipe: dict, base: str | None, step: int | None) -> str:
    facts = read_json(run / "run.json") if (run / "run.json").is_file() else {}
    if not recipe and not facts:
        return f"Base model: {base or 'not recorded'}. Data and settings lie in no run folder beside the weights."
    data, model = recipe.get("data", {}), recipe.get("model", {})
    source = data.get("source")
    source = source if isinstance(source, dict) else {}
    rows = [
        ("base model", base or f"from scratch: {_inline(model.get('config', {}))}"),
        ("weights", f"those of step {step}" if step is not None else None),
        ("adapters", _inline(model["lora"]) if model.get("lora") else None),
        ("data", _inline(source or {"source": data.get("source")})),
        ("seeds", f"training {recipe.get('training', {}).get('seed')}, data {source.get('seed', '-')}"),
        *((key, facts.get(key)) for key in ("command", "date", "commit", "hardware", "processes", "seconds", "python")),
        ("earlier commits", ", ".join(map(str, facts.get("earlier_commits", [])))),
        ("versions", _inline(facts.get("versions", {}))),
    ]
    return _table(["", ""], [(key, str(value)) for key, value in rows if value])


def _final(metrics: Path, step: int | None) -> list[tuple[str, str]]:
    """The last value of every metric up to a step, the monitor's left out."""
    last: dict[str, Any] = {}
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            if number < len(lines):  # a run that was killed leaves half a line
                raise ValueError(f"{metrics}: line {number} is not JSON: repair or remove it") from None
            continue
        last |= row if step is None or row.get("step", 0) <= step else {}
    numbers = {key: value for key, value in last.items() if isinstance(value, int | float)}
    return [(key, f"{value:.6g}") for key, value in numbers.items() if not key.startswith("monitor/")]


def _scores(folder: Path) -> list[tuple[str, ...]]:
    """Every score of the result files."""
    results = [Result.read(file) for file in sorted(folder.glob("*.json"))]
    scored = [
        (key, task) for result in results if "merged_from" not in result.extra for key, task in result.tasks.items()
    ]
    return [
        (str(key), name, f"{score.value:.4g}", "-" if score.stderr is None else f"{score.stderr:.2g}")
        for key, task in scored
        for name, score in task.scores.items()
        if score.exists
    ]


def _citations(objective: dict | None) -> list[str]:
    if objective is None:
        return []
    found = dict.fromkeys(sources(parse(Objective, objective, "objective")))
    papers: dict[str, str] = {}
    for _, text in found:
        for phrase in text.split(";"):
            if paper := ARXIV.search(phrase):
                papers.setdefault(paper[1], phrase[: paper.start()].strip(" ,(") or paper[0])
    entries = "\n".join(
        f"@misc{{arxiv_{number.replace('.', '_')},\n  title = {{{title}}},\n  eprint = {{{number}}},\n"
        f"  archivePrefix = {{arXiv}},\n  url = {{https://arxiv.org/abs/{number}}}\n}}"
        for number, title in papers.items()
    )
    told = _section("## Methods", _table(["part", "source"], list(found)))
    return told + _section("## Citations", f"```bibtex\n{entries}\n```" if entries else "")


def _section(title: str, body: str) -> list[str]:
    return [title, body] if body else []


def _table(head: list[str], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""


def _inline(data: dict) -> str:
    return ", ".join(f"{key}: {value}" for key, value in data.items() if value is not None)
