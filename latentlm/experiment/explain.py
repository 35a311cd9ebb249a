"""What `latentlm explain` prints and writes: the meaning of a key, of a kind of part, or of a shipped recipe."""

import itertools
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from latentlm.config.catalog import experiment_names, method_names, model_names, paper_names, recipe_names
from latentlm.config.docs import read_docs
from latentlm.config.json_schema import definition_name, json_schema
from latentlm.config.reference import REQUIRED, Key, all_parts, find, flow, keys_of, walk
from latentlm.config.reference_page import reference_page
from latentlm.config.schema import ConfigError, kind_of, suggest
from latentlm.data import Text as TextData
from latentlm.experiment.file_form import file_form
from latentlm.experiment.training import Training, arguments_class
from latentlm.whole_files import write_json, write_text

HEAD = """
# Recipe reference

<!-- Written by `latentlm explain --page recipes` from types and docstrings; edit those, not this file. -->

Every key of a recipe: what it may be, its default, what it means. The same text in a terminal:
`latentlm explain training.learning_rate`, `latentlm explain objective.terms.*.target`, `latentlm explain ema`.

* A key is written as YAML in a file, or as `key.path=value` on the command line;
  a number is a place in a list: `data.parts.1.source=texts.jsonl`.
* `*` is a name that you choose, such as the name of a term.
* Where a key has several kinds, `kind` chooses one: `target: {kind: ema, momentum: 0.99}`. A kind whose keys all have
  defaults can be written alone: `loss: cosine`.
* "number" and "text" are plain values; "a block" is a mapping with the keys of the section that has its name.

**Completion in an editor.** `latentlm explain --page .` writes `recipe.schema.json` into the current folder. Editors
with the YAML language server (VS Code with the YAML extension, Neovim, Emacs) complete and check the keys of a recipe
that begins with

    # yaml-language-server: $schema=recipe.schema.json
"""
MANY = 4  # keys or kinds of one name that are explained in full; more of them are listed


def write_reference(folder: Path) -> list[Path]:
    """Write the reference page and the JSON schema of a recipe into a folder."""
    if not folder.is_dir():
        raise ConfigError(f"--page {folder}: no such folder; make it first, or name another one")
    page, schema = folder / "REFERENCE.md", folder / "recipe.schema.json"
    write_text(page, reference_page(file_form(), HEAD))
    write_json(schema, recipe_schema())
    return [page, schema]


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe's file, which may leave to a method, an experiment or the command line what it likes.

    The keys of `training` are those of the installed transformers; others are let through.
    """
    import transformers

    form = file_form(arguments_class("supervised"))
    schema = json_schema(form, "latentlm recipe")
    schema["$comment"] = f"training: transformers {transformers.__version__}"
    del schema["required"]
    for key in keys_of(form):
        for part in key.kinds:
            schema["$defs"][definition_name(part)].pop("required", None)
    for reference in schema["properties"]["data"]["oneOf"]:
        if reference["$ref"].endswith(definition_name(TextData)):
            del reference["required"]  # the kind that may be left out
    schema["$defs"][definition_name(Training)]["additionalProperties"] = True  # GRPOConfig, other versions
    return schema


def explain(word: str | None = None) -> Group:
    """The blocks of a recipe, or what a key, a kind or the name of a recipe means."""
    if word is None:
        return _blocks()
    exact = (_exact(form, word) for form in _forms(None, "supervised", "grpo"))
    ending = (_ending(form, word) for form in _forms("supervised", "grpo"))
    if found := next(filter(None, itertools.chain(exact, ending)), None):
        return Group(*[line for entry in found for line in (entry, "")][:-1])
    forms = list(_forms("supervised", "grpo"))
    names = [name for form in forms for name in (*(key.path for key in walk(form)), *map(kind_of, all_parts(form)))]
    ends = [".".join(name.split(".")[start:]) for name in names for start in range(name.count(".") + 1)]
    near = suggest(word, list(dict.fromkeys([*ends, *_files()])))
    near = near if "did you mean" in near else "; list the blocks with: latentlm explain"
    raise ConfigError(f"explain '{word}': no such key, kind or name{near}")


def _forms(*trainers: str | None) -> Iterator[type]:
    """A recipe with the arguments of each trainer, which are slow to import; None leaves them out."""
    for trainer in trainers:
        with suppress(ModuleNotFoundError):  # trl is an extra
            yield file_form(arguments_class(trainer) if trainer else None)


def _exact(form: type, word: str) -> list[Group]:
    """What a whole key, a kind or the name of a recipe means; it may be all of them."""
    keys = find(form, word)
    named = {part: paths for part, paths in all_parts(form).items() if kind_of(part) == word}
    kinds = {part: paths for part, paths in named.items() if not any(key.kinds == (part,) for key in keys)}
    recipe = [_recipe(word)] if word in _files() else []
    return [*recipe, *(_part(part, paths) for part, paths in kinds.items()), *map(_key, keys)]


def _ending(form: type, word: str) -> list[Group]:
    """The keys that end in a word or path, in full where they are few."""
    keys = [key for key in walk(form) if key.path.endswith(f".{word}")]
    return list(map(_key, keys)) if len(keys) <= MANY else [_listed(word, keys)]


def _blocks() -> Group:
    form = file_form()
    rows = [(key.path, key.meaning or read_docs(key.kinds[0]).summary) for key in keys_of(form)]
    return Group(
        Text(read_docs(form).summary),
        "",
        _columns(rows),
        "",
        Text("latentlm explain KEY says more about a key, a kind or a recipe, for example:"),
        _indented(Text("latentlm explain objective.terms.*.target\nlatentlm explain ema\nlatentlm explain nitp")),
    )


def _key(key: Key) -> Group:
    parts = key.kinds
    meaning = key.meaning or (read_docs(parts[0]).summary if len(parts) == 1 else "")
    lines: list[Any] = [
        _heading(key.path, f"of {kind_of(key.part)}" if "." in key.path else ""),
        _indented(Text(meaning)),
        _labelled("default", key.default),
        _labelled("type", key.choices),
    ]
    if example := _example(key):
        lines.append(_labelled("example", example))
    if len(parts) == 1:
        docs = read_docs(parts[0])
        lines += ["", *(_indented(Text(text)) for text in (docs.summary, *docs.prose) if text != meaning)]
        lines += ["", _indented(_keys(parts[0]))]
    elif parts:
        lines += ["", _indented(_columns([(kind_of(part), read_docs(part).summary) for part in parts]))]
    return Group(*lines)


def _labelled(label: str, text: str) -> Padding:
    return _indented(_columns([(f"{label:<7}", text)], style="dim"))


def _part(part: type, paths: list[str]) -> Group:
    docs = read_docs(part)
    lines: list[Any] = [_heading(kind_of(part), f"for {', '.join(paths[:MANY])}"), _indented(Text(docs.summary))]
    if docs.equation:
        lines += ["", _indented(Text(docs.equation), 4), ""]
    lines += [_indented(Text(paragraph)) for paragraph in docs.prose]
    if keys_of(part):
        lines += ["", _indented(_keys(part))]
    if "Source" in docs.labels:
        lines += ["", _labelled("source", docs.labels["Source"])]
    return Group(*lines)


def _recipe(name: str) -> Group:
    """The header of a file, which says the method and its equation, and what the file sets."""
    kinds = {"method": method_names(), "experiment": experiment_names(), "paper": paper_names(), "model": model_names()}
    what = next(kind for kind, names in kinds.items() if name in names)
    lines = _files()[name].read_text(encoding="utf-8").splitlines()
    header = [line.removeprefix("#").removeprefix(" ") for line in lines if line.startswith("#")]
    body = "\n".join(line for line in lines if not line.startswith("#"))
    return Group(_heading(name, f"({what})"), _indented(Text("\n".join(header))), "", _indented(Text(body.strip())))


def _files() -> dict[str, Path]:
    return recipe_names() | paper_names() | model_names()


def _listed(word: str, keys: list[Key]) -> Group:
    rows = [(f"{key.path} ({kind_of(key.part)})", key.meaning) for key in keys]
    return Group(_heading(word, f"a key of {len(keys)} parts"), _indented(_columns(rows)))


def _keys(part: type) -> Table:
    return _columns(
        [
            (key.path, f"{key.meaning} [{key.choices}; {'' if key.default == REQUIRED else 'default '}{key.default}]")
            for key in keys_of(part)
        ]
    )


def _heading(name: str, about: str) -> Text:
    return Text.assemble((name, "bold"), (f"  {about}" if about else "", "dim"))


def _indented(what: Any, by: int = 2) -> Padding:
    return Padding(what, (0, 0, 0, by))


def _columns(rows: list[tuple[str, str]], style: str = "cyan") -> Table:
    """Names and what they mean, in two columns."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style=style, overflow="fold", max_width=34)
    table.add_column(ratio=1)
    for name, text in rows:
        table.add_row(Text(name), Text(text))
    return table


def _example(key: Key) -> str:
    """How a recipe sets the key, or the default as it would be written on the command line."""
    for name, data in _shipped().items():
        for value in _values(data, key.path.split("."), key.part):
            if len(line := flow({key.path.rpartition(".")[2]: value})[1:-1]) < 160:
                return f"{line}   ({name})"
    scalar = key.default not in (REQUIRED, "null") and not key.kinds
    return f"{key.path.replace('*', 'NAME')}={key.default}" if scalar else ""


@cache
def _shipped() -> dict[str, Any]:
    return {name: yaml.safe_load(path.read_text(encoding="utf-8")) for name, path in recipe_names().items()}


def _values(data: Any, words: list[str], part: type | None) -> Iterator[Any]:
    """Values at a path in plain data, where the block that holds them may be of the kind `part`."""
    if isinstance(data, list):
        for entry in data:
            yield from _values(entry, words, part)
    elif isinstance(data, dict) and len(words) > 1:
        for name in data if words[0] == "*" else [words[0]]:
            yield from _values(data.get(name), words[1:], part)
    elif isinstance(data, dict) and words[0] in data and (part is None or data.get("kind") in (None, kind_of(part))):
        yield data[words[0]]
