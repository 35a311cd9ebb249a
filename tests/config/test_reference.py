"""The reference of recipes: from types and docstrings, complete, current, and the same as what the parser takes."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import jsonschema
import pytest
import yaml
from paths import ROOT
from run_cli import latentlm

from latentlm.config.catalog import experiment_names, recipe_names
from latentlm.config.docs import read_docs
from latentlm.config.json_schema import json_schema
from latentlm.config.reference import all_parts, find, keys_of, walk
from latentlm.config.schema import ConfigError, dump, fields_of, parse
from latentlm.experiment.explain import write_reference
from latentlm.experiment.recipe import Recipe, load_recipe
from latentlm.experiment.training import Training


@dataclass(frozen=True)
class Slow:
    """Goes
    slowly.

        y = x / 2

    It takes a while.

    Source:    a paper,
               on two lines.
    Checked:   here.

    Args:
        rate, momentum: two at once.
        mode: ``a`` or
            ``b``.
    """

    rate: float
    momentum: float | None = None
    mode: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Fast:
    """Goes fast."""

    num: int = 3


@dataclass(frozen=True)
class Tree:
    """A tree.

    Args:
        part: one part.
        parts: by name.
        items: in a row.
        free: anything.
        count: how many.
    """

    part: Slow | Fast
    parts: dict[str, Slow | Fast] = field(default_factory=dict)
    items: tuple[Slow | Fast, ...] = ()
    free: dict[str, Any] = field(default_factory=dict)
    count: int | None = None


def test_docstrings_are_taken_apart():
    docs = read_docs(Slow)
    assert (docs.summary, docs.equation, docs.prose) == ("Goes slowly.", "y = x / 2", ("It takes a while.",))
    assert docs.labels == {"Source": "a paper, on two lines.", "Checked": "here."}
    assert docs.keys == {"rate": "two at once.", "momentum": "two at once.", "mode": "`a` or `b`."}


def test_keys_say_their_type_and_default():
    told = {key.path: (key.choices, key.default) for key in walk(Tree)}
    assert told == {
        "part": ("slow | fast", "required"),
        "part.rate": ("number", "required"),
        "part.momentum": ("number or null", "null"),
        "part.mode": ("a | b", "a"),
        "part.num": ("integer", "3"),
        "parts": ("mapping of names to slow | fast", "{}"),
        "parts.*.rate": ("number", "required"),
        "parts.*.momentum": ("number or null", "null"),
        "parts.*.mode": ("a | b", "a"),
        "parts.*.num": ("integer", "3"),
        "items": ("list of slow | fast", "[]"),
        "items.rate": ("number", "required"),
        "items.momentum": ("number or null", "null"),
        "items.mode": ("a | b", "a"),
        "items.num": ("integer", "3"),
        "free": ("mapping", "{}"),
        "count": ("integer or null", "null"),
    }


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("parts.*.rate", ["parts.*.rate"]),
        ("parts.any-name.rate", ["parts.*.rate"]),
        ("parts.slow.rate", ["parts.*.rate"]),
        ("parts.*.slow.rate", ["parts.*.rate"]),
        ("part.slow.rate", ["part.rate"]),
        ("part.fast.rate", []),
        ("parts.*", ["parts"]),
        ("items.num", ["items.num"]),
        ("rate", []),
        ("", []),
        ("part.", []),
    ],
)
def test_a_key_is_found_by_its_path(path, found):
    assert [key.path for key in find(Tree, path)] == found


def test_every_key_of_a_recipe_is_documented():
    parts = (Recipe, Training, *all_parts(Recipe))
    missing = [f"{part.__name__}.{key.path}" for part in parts for key in keys_of(part) if not key.meaning]
    assert not missing, f"no line in Args: {', '.join(missing)}"


def test_docstrings_name_no_key_that_is_not_there():
    for part in (Recipe, *all_parts(Recipe)):
        assert set(read_docs(part).keys) <= set(fields_of(part)), part.__name__


def test_page_and_schema_are_current(tmp_path):
    page, schema = write_reference(tmp_path)
    again = "write them again: latentlm explain --page recipes"
    assert (ROOT / "recipes" / page.name).read_text(encoding="utf-8") == page.read_text(encoding="utf-8"), again
    shipped, current = (json.loads((folder / schema.name).read_text()) for folder in (ROOT / "recipes", tmp_path))
    if shipped["$comment"] != current["$comment"]:  # other arguments in another transformers
        for each in (shipped, current):
            del each["$comment"], each["$defs"]["training.Training"]["properties"]
    assert shipped == current, again


@pytest.fixture(scope="module")
def validator():
    schema = json.loads((ROOT / "recipes" / "recipe.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", recipe_names())
def test_the_schema_takes_every_shipped_recipe(validator, name):
    validator.validate(yaml.safe_load(recipe_names()[name].read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", experiment_names())
def test_the_schema_takes_a_recipe_with_all_defaults_written_out(validator, name):
    overrides = ["model.name=NAME", "data.source=FILE"] if name == "finetune" else []
    validator.validate(json.loads(json.dumps(dump(load_recipe(name, overrides)))))


@pytest.mark.parametrize(
    "data",
    [
        {"objectives": "nitp"},
        {"objective": {"terms": {"a": {"kind": "predikt"}}}},
        {"objective": {"terms": {"a": {"kind": "predict", "source": {"depth": 1}}}}},
        {"data": {"max_lenght": 3}},
        {"data": {"kind": "images", "max_length": 3}},
        {"training": {"learning_rate": "fast"}},
        {"trainer": "ppo"},
    ],
)
def test_the_schema_refuses_mistakes(validator, data):
    assert not validator.is_valid(data)


@pytest.mark.parametrize(
    "data",
    [
        {"part": "fast"},
        {"part": {"kind": "fast", "num": 4}},
        {"part": {"kind": "slow", "rate": "1e-4"}, "parts": {"a": "fast"}, "items": ["fast", {"kind": "fast"}]},
        {"part": "fast", "free": {"x": [1]}, "count": None},
        {"part": "slow"},
        {"part": {"kind": "slow"}},
        {"part": {"num": 3}},
        {"part": {"kind": "fast", "rate": 3}},
        {"part": "fast", "count": "three"},
        {"part": "fast", "count": 1.5},
        {"part": "fast", "cuont": 1},
        {"part": {"kind": "slow", "rate": "quick"}},
        {"part": {"kind": "slow", "rate": 1, "mode": "c"}},
        {"part": "fast", "items": {"kind": "fast"}},
        {"part": "fast", "parts": ["fast"]},
    ],
)
def test_schema_and_parser_agree(data):
    try:
        parse(Tree, data)
        right = True
    except ConfigError:
        right = False
    assert jsonschema.Draft202012Validator(json_schema(Tree, "tree")).is_valid(data) is right


def test_explain_prints_blocks_keys_kinds_and_recipes():
    told = latentlm("explain")
    assert told.code == 0
    assert all(f"\n{key.path} " in told.out for key in keys_of(Recipe))
    for word in ("objective.terms", "data", "ema", next(iter(recipe_names()))):
        told = latentlm("explain", word)
        assert told.code == 0
        assert told.out.startswith(word)
    told = latentlm("explain", "objective.terms.mine.target.ema.momentum")
    assert [line.split() for line in told.out.splitlines() if line.startswith("  default")] == [["default", "0.999"]]
    assert latentlm("explain", "ema").out == latentlm("explain", "ema").out.rstrip() + "\n"
    assert max(map(len, latentlm("explain", "ema").out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("word", "fix"),
    [
        ("objective.terms.*.targt", "did you mean 'objective.terms.*.target'?"),
        ("momentun", "did you mean 'momentum'?"),
        ("zzzz", "list the blocks with: latentlm explain"),
    ],
)
def test_a_wrong_key_is_one_line_with_the_fix(word, fix):
    told = latentlm("explain", word)
    assert (told.code, told.out) == (2, "")
    assert told.err == f"latentlm: explain '{word}': no such key, kind or name; {fix}\n"


def test_the_page_needs_a_folder(tmp_path):
    told = latentlm("explain", "--page", str(tmp_path / "new"))
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert latentlm("explain", "--page", str(tmp_path)).out.split() == [
        str(tmp_path / "REFERENCE.md"),
        str(tmp_path / "recipe.schema.json"),
    ]
