"""Mutated recipes and overrides: each loads or is refused in one line, in a moment; there is never a traceback."""

import random
import time
from typing import Any

import pytest
import yaml

from latentlm.config.catalog import recipe_names
from latentlm.config.compose import compose
from latentlm.config.schema import ConfigError
from latentlm.experiment.recipe import build_recipe

JUNK: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 10**400, 1.5, -0.5, 1e308, float("nan"), float("inf"), "", " ", "x", "no",
    "1/0", "-1/2",
    "1/2", "~/x", "a" * 5000, "\u0000", "é\u202e", "{", "${x}", [], [[]], {}, {"kind": 3}, {"kind": None},
    {"kind": ["a"]}, {"": 1}, {None: 2}, {1: {2: 3}}, ["a", 1, None], [{"kind": "x"}], "predict", "facts", "images",
    "text", {"kind": "facts", "num_both": -1}, {"kind": "corpus", "path": ""}, 2026, "2026-11-29", {"value": -1},
]  # fmt: skip
BOMB = ", ".join(["&b0 [x]", *(f"&b{i} [{', '.join([f'*b{i - 1}'] * 10)}]" for i in range(1, 10))])
MERGES = ", ".join(["&m0 {x: 1}", *(f"&m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 10)}]}}" for i in range(1, 10))])
HOSTILE = [  # YAML in the place of a value
    f"[{BOMB}]", f"[{MERGES}]", "&a [*a]", "&a {b: *a}", "&a {<<: *a}", "[&c 1, *c, *c]", "*nowhere", "&a", "&a &b 1",
    "[" * 300 + "]" * 300, "{a: " * 300 + "}" * 300, "[" * 50_000, "- " * 300, "? " * 300,
    "!!bool maybe", "!!int x", "!!float x", "!!timestamp soon", "!!binary '1'", "!!set {a, b}", "!!omap [a: 1]",
    "!own x", "! x", "!!python/object/apply:os.system [ls]", "!!python/name:os.system", "%TAG ! x",
    "9" * 5000, "-" + "9" * 400, "0x" + "f" * 400, "0b_", "1_0", "190:20:30", "1e999", "-.inf", ".NaN", "2026-02-31",
]  # fmt: skip
MORE = ("smoke_vision", "grpo", "levels", "llm_jepa")
SECONDS = 5  # of one case, on the processor


def walk(data: Any, path: tuple = ()) -> list[tuple]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [found for key, value in items for found in ((*path, key), *walk(value, (*path, key)))]


def mutate(data: Any, rng: random.Random) -> Any:
    """One place of a recipe, changed."""
    data = yaml.safe_load(yaml.safe_dump(data))
    places = walk(data)
    if not places:
        return rng.choice(JUNK)
    *above, key = rng.choice(places)
    node = data
    for step in above:
        node = node[step]
    action = rng.randrange(6)
    if action == 0:
        del node[key]
    elif action == 1 and isinstance(node, dict):
        node[f"{key}{rng.choice('sx_')}"] = node.pop(key)
    elif action == 2 and isinstance(node, dict):
        node[rng.choice(["kind", "source", "weight", "name", "depth", "at", 3, "training"])] = rng.choice(JUNK)
    elif action == 3:  # a piece of somewhere else
        *others, last = rng.choice(places)
        other = data
        for step in others:
            if not isinstance(other, dict | list) or (isinstance(other, list) and step >= len(other)):
                return data
            other = other[step]
        node[key] = (
            yaml.safe_load(yaml.safe_dump(other[last])) if not isinstance(other, list) or last < len(other) else 0
        )
    else:
        node[key] = rng.choice(JUNK)
    return data


def scramble(text: str, rng: random.Random) -> str:
    """Some characters of a file, changed."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        piece = rng.choice(
            ["", "&a ", "*a", "!!int ", "[", "{", "}", ":", "\t", "- ", "#", "\n", "<<: ", "'", "? ", "|", "%"]
        )
        text = text[:at] + piece + text[at + rng.randint(0, 3) :]
    return text


def loads_or_is_refused(*words: Any) -> bool:
    started = time.process_time()
    line = ""
    try:
        build_recipe(compose(*words), *words)
    except (ConfigError, OSError) as error:
        line = str(error) or "refused"
    assert len(line) < 1500, line[:3000]
    assert "\n" not in line
    assert time.process_time() - started < SECONDS
    return not line


@pytest.mark.parametrize("name", ["smoke_text", "dino", *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_a_recipe_with_something_changed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng, data, file = random.Random(name), compose(name), tmp_path / "own.yaml"
    loads_or_is_refused(name)  # the first one pays for slow imports
    loaded = 0
    for _ in range(30):
        changed = data
        for _ in range(rng.randint(1, 3)):
            changed = mutate(changed, rng)
        file.write_text(yaml.safe_dump(changed), encoding="utf-8")
        loaded += loads_or_is_refused(file)
    assert loaded < 25  # the changes do reach something


@pytest.mark.parametrize(
    "name", ["smoke_text", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mae", "reversal_pretrained"))]
)
def test_a_file_with_some_characters_changed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng, text, file = random.Random(name), recipe_names()[name].read_text(encoding="utf-8"), tmp_path / "own.yaml"
    for _ in range(30):
        file.write_text(scramble(text, rng), encoding="utf-8")
        loads_or_is_refused(file)


@pytest.mark.parametrize("name", ["smoke_text", "mae"])
def test_anchors_tags_depth_and_numbers_in_the_place_of_a_value(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng, file = random.Random(name), tmp_path / "own.yaml"
    lines = recipe_names()[name].read_text(encoding="utf-8").splitlines()
    places = [number for number, line in enumerate(lines) if ": " in line and not line.startswith("#")]
    keys = [".".join(map(str, path)) for path in walk(compose(name))]
    for piece in HOSTILE:
        at = rng.choice(places)
        changed = f"{lines[at].partition(': ')[0]}: {piece}"
        file.write_text("\n".join([*lines[:at], changed, *lines[at + 1 :]]), encoding="utf-8")
        loads_or_is_refused(file)
        loads_or_is_refused(name, [f"{rng.choice(keys)}={piece}"])


@pytest.mark.parametrize("name", ["smoke_text", "mae"])
def test_overrides_of_any_kind(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng, keys = random.Random(name), [".".join(map(str, path)) for path in walk(compose(name))]
    for _ in range(30):
        words = []
        for _ in range(rng.randint(1, 3)):
            key = rng.choice([*keys, "", ".", "a..b", "kind", "model.config.a.b", "data.augment.0", "a." * 100])
            value = (
                yaml.safe_dump(rng.choice(JUNK), default_flow_style=True, width=10**9).removesuffix("\n...\n").strip()
            )
            words.append(rng.choice([f"{key}={value}", key, f"={value}", f"{key}={scramble(value or 'x', rng)}"]))
        loads_or_is_refused(name, words)
