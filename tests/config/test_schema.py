"""YAML and parts are the same thing, and a mistake is one line that says where it is and what was meant."""

import dataclasses
import random
import types
import typing
from typing import Any

import pytest
import yaml
from toy_view import objective

from latentlm.components.tap import Depth
from latentlm.config.catalog import read_recipe, recipe_names
from latentlm.config.overrides import override
from latentlm.config.schema import ConfigError, dump, kind_of, parse, suggest
from latentlm.experiment.recipe import Recipe, load_recipe
from latentlm.objective.objective import Objective

WORDS = ["here", "there", "data_set"]
DEPTHS = [0, 1, 2, 0.5, "1/3", "block 1"]
SPECIAL = {"hidden": [8, "2x"], "momentum": [0.5, 1.0]}  # what a type alone does not tell


def make(annotation: Any, draw: random.Random, name: str = "") -> Any:
    """A random value of a type; ValueError where parts do not go together."""
    if annotation == Depth:
        return draw.choice(DEPTHS)
    if name in SPECIAL:
        return draw.choice(SPECIAL[name])
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return make(draw.choice(inner), draw, name)
    if dataclasses.is_dataclass(annotation):
        hints = typing.get_type_hints(annotation)
        fields = [f for f in dataclasses.fields(annotation) if f.init]
        chosen = [f for f in fields if draw.random() < 0.6 or f.default is f.default_factory]
        return annotation(**{f.name: make(hints[f.name], draw, f.name) for f in chosen})
    if origin is typing.Literal:
        return draw.choice(inner)
    if origin is tuple:
        return tuple(make(inner[0], draw) for _ in range(draw.randint(1, 2)))
    if origin is dict:
        return {word: make(inner[1], draw) for word in draw.sample(WORDS, draw.randint(0, 2))}
    return {
        int: lambda: draw.randint(1, 5),
        float: lambda: draw.choice([0.25, 1.0, 1e-4, 0.5]),
        bool: lambda: draw.random() < 0.5,
        str: lambda: draw.choice(WORDS),
        type(None): lambda: None,
        Any: lambda: draw.choice([1, "a", [1, 2], {"b": 0.5}]),
    }[annotation]()


def parts(annotation: Any, found: dict) -> dict:
    """Every part below a type -> the type of the field it stands in."""
    for option in (annotation, *typing.get_args(annotation)):
        if dataclasses.is_dataclass(option) and option not in found:
            found[option] = annotation
            for hint in typing.get_type_hints(option).values():
                parts(hint, found)
        elif option is not annotation:
            parts(option, found)
    return found


PARTS = parts(Recipe, {})


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_part_survives_yaml(part):
    draw, made = random.Random(0), []
    for _ in range(3000):
        try:
            made.append(make(part, draw))
        except ValueError:
            continue  # the part refused the combination
        if len(made) == 8:
            break
    assert len(made) >= 3, f"only {len(made)} random values of {part.__name__} were valid"
    for value in made:
        for annotation in (part, PARTS[part]):
            if typing.get_origin(annotation) in (dict, tuple):
                continue
            plain = yaml.safe_load(yaml.safe_dump(dump(value, annotation), sort_keys=False))
            assert parse(annotation, plain) == value
        assert parse(part, value) is value


def test_all_parts_are_tested():
    names = {part.__name__ for part in PARTS}
    assert names >= {
        "Predict",
        "Regularize",
        "Levels",
        "Next",
        "Last",
        "TokenEmbeddings",
        "Dynamics",
        "Shared",
        "InfoNce",
        "Weight",
    }
    assert len({kind_of(part) for part in PARTS}) >= len(PARTS) - 1  # Data is a target and a family


@pytest.mark.parametrize("name", [name for name in recipe_names() if name != "finetune"])  # names no model
def test_recipes_parse_and_survive_yaml(name):
    recipe = load_recipe(name)
    assert parse(Recipe, yaml.safe_load(yaml.safe_dump(dump(recipe)))) == recipe
    if recipe.model.name is None:  # else the depth stands in a checkpoint
        assert recipe.objective.resolve(recipe.model.config["num_hidden_layers"]) or not recipe.objective.terms


def test_kinds_are_the_names_of_classes():
    class SmoothL1: ...

    class InfoNce: ...

    assert [kind_of(part) for part in (SmoothL1, InfoNce)] == ["smooth_l1", "info_nce"]


def test_a_bare_word_is_a_part_without_arguments_and_numbers_may_be_words():
    term = "{kind: predict, source: {depth: 1}, target: {kind: online, tap: {depth: 1, at: %s}}, loss: %s, weight: %s}"
    short = objective(f"terms: {{a: {term % ('next', 'mse', '1e-4')}}}")
    assert short == objective(f"terms: {{a: {term % ('{kind: next}', '{kind: mse}', 0.0001)}}}")
    assert short.terms["a"].weight == 1e-4
    assert objective(f"terms: {{a: {term % ('own_set', 'mse', '1')}}}").terms["a"].target.tap.at == "own_set"


TERM = {
    "kind": "predict",
    "source": {"depth": 1},
    "target": {"kind": "online", "tap": {"depth": 1}},
    "loss": {"kind": "mse"},
}


def broken(**changes):
    return {"terms": {"a": {k: v for k, v in (TERM | changes).items() if v is not None}}}


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"term": {}}, "objective: unknown key 'term' for Objective; did you mean 'terms'?"),
        ({"lm_weight": "much"}, "objective.lm_weight: 'much' is not float"),
        ({"lm_weight": True}, "objective.lm_weight: True is not float"),
        ({"monitor_every": 1.5}, "objective.monitor_every: 1.5 is not int"),
        ({"terms": []}, "objective.terms: [] is not dict"),
        (broken(target={"kind": "pixels", "normalize": 1}), "objective.terms.a.target.normalize: 1 is not none or"),
        (broken(kind=None), "objective.terms.a: needs a 'kind'; known: levels, predict, regularize"),
        (broken(kind="predikt"), "objective.terms.a: unknown kind 'predikt'; did you mean 'predict'?"),
        (broken(kind=["predict"]), "objective.terms.a: unknown kind '['predict']'"),
        (broken(sorce=1), "objective.terms.a: unknown key 'sorce' for Predict; did you mean 'source'?"),
        (broken(source=None), "objective.terms.a: Predict needs the key 'source'"),
        (
            broken(source={"depth": 1, "norm": "finale"}),
            "objective.terms.a.source.norm: unknown value 'finale'; did you mean 'final'?",
        ),
        (broken(source={"depth": {"at": 1}}), "objective.terms.a.source.depth: {'at': 1} is not int or float or str"),
        (broken(source={"depth": "1/O"}), "objective.terms.a.source: depth '1/O': use a fraction"),
        (broken(loss="smoth_l1"), "objective.terms.a.loss: unknown kind 'smoth_l1'; did you mean 'smooth_l1'?"),
        (broken(loss={"kind": "mse", "beta": 1}), "objective.terms.a.loss: unknown key 'beta' for Mse, which has none"),
        (broken(loss={"kind": "smooth_l1", "beta": -1}), "objective.terms.a.loss: SmoothL1.beta is -1.0"),
        (broken(target="ema"), "objective.terms.a.target: Ema needs the key 'tap'"),
        (broken(target="tokens"), "objective.terms.a: loss: next_token goes with target tokens"),
        (broken(target="tokens", loss="next_token"), "objective.terms.a: decode_with: target tokens needs the readout"),
        (broken(loss="next_token"), "objective.terms.a: loss: next_token goes with target tokens"),
        (
            broken(target={"kind": "token_embeddings", "ids": "x"}, decode_with="lm_head"),
            "objective.terms.a: decode_with: a target token_embeddings",
        ),
        (broken(source={"depth": 1, "at": {"kind": "next", "offset": 0}}), "objective.terms.a.source.at: next: offset"),
        (broken(weight={"kind": "wait"}), "objective.terms.a.weight: unknown kind 'wait'; known: weight"),
        (broken(kind="levels", sources=[1, None], targets=[1]), "objective.terms.a: unknown key 'source' for Levels"),
        ({"terms": {"a": {"kind": "levels", "sources": [1, {}]}}}, "objective.terms.a: Levels needs the key 'targets'"),
        (broken(source={"depth": {}}), "objective.terms.a.source.depth: {} is not int or float or str"),
        ("terms", "objective: 'terms' is not"),
        (None, "objective: None is not"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_place(data, line):
    with pytest.raises(ConfigError) as told:
        parse(Objective, data, "objective")
    assert str(told.value).startswith(line)
    assert "\n" not in str(told.value)


def test_suggestions():
    assert suggest("cosin", ["cosine", "mse"]) == "; did you mean 'cosine'?"
    assert suggest("xyz", ["mse", "cosine"]) == "; known: cosine, mse"


def test_overrides():
    data = {"a": {"b": 1, "c": {"kind": "x", "d": 2}}, "e": [1]}
    assert override(data, ["a.b=2.5", "new.deep.key=[1, two]", "a.c.d=null"]) == {
        "a": {"b": 2.5, "c": {"kind": "x", "d": None}},
        "e": [1],
        "new": {"deep": {"key": [1, "two"]}},
    }
    assert data == {"a": {"b": 1, "c": {"kind": "x", "d": 2}}, "e": [1]}
    assert override(data, ["a.c.d=7", "a.c.kind=y"])["a"]["c"] == {"kind": "y", "d": 7}
    assert override(data, ["a.b=text=with=signs", "e={"]) == data | {
        "a": data["a"] | {"b": "text=with=signs"},
        "e": "{",
    }
    for pairs in (["n.x={y: 1, z: 1}", "n.x.y=2"], ["n.x.y=2", "n.x={y: 1, z: 1}"]):  # a block before the keys in it
        assert override(data, pairs)["n"] == {"x": {"y": 2, "z": 1}}
    parts = {"parts": [{"path": "a"}, {"path": "b", "kind": "x", "n": 1}]}
    assert override(parts, ["parts.0.path=c", "parts.1.kind=y"]) == {"parts": [{"path": "c"}, {"kind": "y"}]}
    assert override(parts, ["parts.1.n=2", "parts=[1, {n: 3}]"]) == {"parts": [1, {"n": 2}]}
    assert parts["parts"][0] == {"path": "a"}
    assert override(data, ["a.b=2024-13-45"])["a"]["b"] == "2024-13-45"
    assert override(data, ["a.b=1e-4"])["a"]["b"] == "1e-4"  # parse makes a number of it where one is wanted
    for wrong, line in (
        ("a.b", "override 'a.b': write key.path=value"),
        ("=3", "override '=3': write key.path=value"),
        ("e.f=3", "override 'e.f': 'f' is no place in this list; it has 0"),
        ("e.1=3", "override 'e.1': '1' is no place in this list; it has 0"),
        ("e.-1=3", "override 'e.-1': '-1' is no place"),
        ("e.0.f=3", "override 'e.0.f': 'e.0' is not a block"),
        (["e=[]", "e.0=3"], "override 'e.0': '0' is no place in this list; it has none"),
        ("a.b.c=3", "override 'a.b.c': 'a.b' is not a block"),
        (["n={kind: x, y: 1}", "n.kind=z"], "override 'n.kind': 'n' is given with kind x; leave one of them out"),
    ):
        with pytest.raises(ConfigError) as told:
            override(data, [wrong] if isinstance(wrong, str) else wrong)
        assert str(told.value).startswith(line)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("kind", "short"), [(None, "corpus"), ("text", "corpus"), ("images", "image_folder")])
def test_keys_of_a_source_go_with_its_path(kind, short, first):
    base = {"data": {"max_length": 8} | ({} if kind is None else {"kind": kind})}
    pairs = ["data.source=some/path", "data.source.test=other"]
    found = override(base, pairs if first else pairs[::-1])
    assert found["data"]["source"] == {"kind": short, "path": "some/path", "test": "other"}
    told = override(base, ["data.source.kind=own", *pairs] if first else [*pairs, "data.source.kind=own"])
    assert told["data"]["source"] == {"kind": "own", "path": "some/path", "test": "other"}
    shipped = override(base, ["data.source=some/path"])  # of a recipe: another kind takes its place
    assert override(shipped, ["data.source.kind=own"])["data"]["source"] == {"kind": "own"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1, 2\nb: 3", "line 2: not valid YAML ("),
        ("a: b: c", "line 1: not valid YAML (mapping values are not allowed"),
        ("a: 2024-13-45", ": not valid YAML (month must be in 1..12)"),
        ("a: \x07", ": not valid YAML (unacceptable character"),
        (b"a: \xff", ": not valid YAML (it is not UTF-8"),
        ("a: {b: 1}\nc:\n  - d: 1\n    d: 2", ", line 4: the key 'd' is given twice"),
        ("a: 1\nb: 2\na: 3", ", line 3: the key 'a' is given twice"),
        ("- a", ": must be a mapping"),
        ("", ": must be a mapping"),
    ],
)
def test_files_that_are_no_recipe(tmp_path, text, line):
    file = tmp_path / "own.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as told:
        read_recipe(file)
    assert str(told.value).startswith(f"recipe '{file}'")
    assert line in str(told.value)
    assert "\n" not in str(told.value)


def test_recipes_are_found_by_name_by_path_and_in_a_run_folder(tmp_path):
    assert "nitp" in recipe_names()
    (tmp_path / "recipe.yaml").write_text("a: 1")
    assert read_recipe(tmp_path) == read_recipe(tmp_path / "recipe.yaml") == {"a": 1}
    assert read_recipe("nitp") == read_recipe(recipe_names()["nitp"])
    with pytest.raises(ConfigError, match=r"recipe 'nipt': .*; did you mean 'nitp'"):
        read_recipe("nipt")
