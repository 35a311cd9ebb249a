from dataclasses import dataclass

import pytest
from run_cli import latentlm

from latentlm.config.command_line import describe_options, parse_options, split_words
from latentlm.config.reference import keys_of
from latentlm.config.schema import ConfigError
from latentlm.losses import Cosine, Mse


@dataclass(frozen=True)
class Options:
    """What can be set.

    Args:
        depths: which depths,
            of all.
        rate, quick: two at once.
        name: required.
        loss: a part.
    """

    name: str
    depths: tuple[int, ...] = ()
    rate: float = 0.5
    quick: bool = False
    loss: Mse | Cosine = Mse()
    max_items: int | None = None


def test_values_are_yaml_and_one_may_stand_for_a_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = "a name=2024-01-01 b depths=[2,3] rate=1e-4 max_items=5 quick=true loss=cosine"
    alone, pairs = split_words(line.split())
    assert alone == ["a", "b"]
    assert parse_options(Options, pairs) == Options("2024-01-01", (2, 3), 1e-4, True, Cosine(), 5)
    assert parse_options(Options, [("name", "a b"), ("max_items", "null"), ("depths", "1")]) == Options("a b", (1,))
    assert parse_options(Options, [("name", "x=y"), ("loss.kind", "cosine")]) == Options("x=y", loss=Cosine())
    (tmp_path / "lr=3").mkdir()
    assert split_words(["lr=3", "./a=b", "lr=4"]) == (["lr=3", "./a=b"], [("lr", "4")])  # a folder is a run


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("name=a depth=1", "depth: no such option; did you mean 'depths'?"),
        ("name=a rate=x", "rate: 'x' is not float"),
        ("name=a rate=", "rate: needs a value"),
        ("name=a rate=1 rate=2", "rate: given twice; leave one out"),
        ("name=a depths=[a]", "depths[0]: 'a' is not int"),
        ("name=a loss=cosin", "loss: unknown kind 'cosin'; did you mean 'cosine'?"),
        ("name=a loss.knd=cosine", "loss: needs a 'kind'; known: cosine, mse"),
        ("rate=1", "Options needs the key 'name'"),
        ("name=a --max-items 5", "--max-items: options are written key=value; write max_items=5"),
        ("name=a --rate=5", "--rate=5: options are written key=value; write rate=5"),
        ("--quick --rate=5", "--quick: options are written key=value; write quick=true"),
    ],
)
def test_a_mistake_is_one_line_with_the_option(words, line):
    with pytest.raises(ConfigError) as error:
        parse_options(Options, split_words(words.split())[1])
    assert str(error.value) == line


def test_help_comes_from_the_docs():
    lines = describe_options(Options).splitlines()
    assert [line.split()[0] for line in lines] == ["name", "depths", "rate", "quick", "loss", "max_items"]
    assert lines[0].endswith("required. [required]")
    assert lines[1].endswith("which depths, of all.")
    assert lines[2].endswith("two at once. [0.5]")


def test_every_evaluation_documents_every_option():
    from importlib.metadata import entry_points

    for entry in entry_points(group="latentlm.evals"):
        told = latentlm("eval", entry.name, "--help")
        assert told.code == 0
        assert told.out.startswith(f"Usage: latentlm eval {entry.name} RUN")
        options = entry.load().Options
        assert all(key.meaning for key in keys_of(options)), entry.name
    assert "reversal" in latentlm("eval", "--help").out
