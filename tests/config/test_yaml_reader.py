"""No YAML makes reading endless or ends in a traceback; what is ordinary YAML reads as ever."""

import pytest
import yaml

from latentlm.config.schema import ConfigError
from latentlm.config.yaml_reader import read_value, read_yaml

BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 10))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB, "stands for more than"),
        (MERGES, "stands for more than"),
        ("x: &a [*a]", "line 1: an anchor contains itself"),
        ("x: &a {y: *a}", "an anchor contains itself"),
        ("x: " + "[" * 500 + "]" * 500, "levels deep"),
        ("x: " + "[" * 100_000, "levels deep"),
        ("x: " + "{a: " * 500 + "}" * 500, "levels deep"),
        ("a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 200)), "levels deep"),
        ("z: !!bool maybe", "tag 'tag:yaml.org,2002:bool'"),
        ("z: !!python/object/apply:os.system [ls]", "tag"),
        ("z: !!timestamp soon", "tag"),
        ("z: !!binary '1'", "tag"),
        ("z: 2026-02-31", "not valid YAML"),
        ("z: 0b_", "not valid YAML"),
        ("z: " + "9" * 5000, "not valid YAML"),
        ("[1, 2]: x", "not valid YAML"),
        ("<<: 3", "not valid YAML"),
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is given twice"),
        ("a: *nothing", "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
        ("x" * 2_000_000, "characters"),
    ],
)  # fmt: skip
def test_what_is_refused_is_one_line_that_says_where(text, told):
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "recipe 'own.yaml'")
    assert told in str(caught.value)
    assert str(caught.value).startswith("recipe 'own.yaml'")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "text",
    ["", "a: 1", "[1, {b: c}]", "a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}", "a: 'x: y'", "1e-4", "~", "2026-11-29"],
)
def test_other_yaml_reads_as_ever(text):
    assert read_yaml(text, "-") == yaml.safe_load(text)


def test_a_value_that_is_not_yaml_is_its_text():
    assert read_value("a: b: c", "-") == "a: b: c"
    assert read_value("[1, 2", "-") == "[1, 2"
    with pytest.raises(ConfigError, match="levels deep"):
        read_value("[" * 500, "-")
