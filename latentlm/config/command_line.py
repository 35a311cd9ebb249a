"""`--key value` on a command line <-> a dataclass of options: the strict parser of recipes, and help from the docs."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Sequence
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from latentlm.config.schema import ConfigError, dump, parse, suggest
from latentlm.config.yaml_reader import read_value


def split_words(words: Sequence[str]) -> tuple[list[str], list[tuple[str, str | None]]]:
    """Words that stand alone, and ``--key value`` or ``--key=value`` pairs; a key without a value has None.

    >>> split_words(["run", "--limit", "60", "--a.b=1", "--quick"])
    (['run'], [('limit', '60'), ('a.b', '1'), ('quick', None)])
    """
    alone, pairs, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            alone.append(word)
            continue
        key, equals, value = word[2:].partition("=")
        if equals:
            pairs.append((key, value))
        else:
            pairs.append((key, rest.pop(0) if rest and not rest[0].startswith("--") else None))
    return alone, pairs


def parse_options(part: type, pairs: Sequence[tuple[str, str | None]]) -> Any:
    """Build the dataclass `part` from pairs of `split_words`; values are YAML, a key without one means true.

    A list is written as YAML or by giving its key several times. ``--max-ranked`` is ``max_ranked``.
    """
    hints = get_type_hints(part)
    names = [field.name for field in dataclasses.fields(part) if field.init]
    data: dict[str, Any] = {}
    for key, text in pairs:
        name = key.replace("-", "_")
        if name not in names:
            raise ConfigError(f"--{key}: no such option{suggest('--' + key, ['--' + known for known in names])}")
        many = any(get_origin(option) in (tuple, list) for option in (hints[name], *get_args(hints[name])))
        value = _value(key, text)
        if many and value is not None:
            data[name] = [*data.get(name, []), *(value if isinstance(value, list) else [value])]
        elif name in data:
            raise ConfigError(f"--{key}: given twice; leave one out")
        else:
            data[name] = value
    try:
        return parse(part, data, "-")
    except ConfigError as error:  # "-.limit: ..." -> "--limit: ..."
        raise ConfigError(re.sub(r"^-[.:] ?", "--" if str(error).startswith("-.") else "", str(error))) from error


def _value(key: str, text: str | None) -> Any:
    if text is None:
        return True
    if not text:
        raise ConfigError(f"--{key}: needs a value")
    value = read_value(text, f"--{key}")
    return value if isinstance(value, int | float | str | list | dict | None) else text  # a path may look like a date


def describe_options(part: type) -> str:
    """One entry an option: its name, what it does out of the class's docs, and its default."""
    docs, hints, entries = documented(part), get_type_hints(part), []
    for field in dataclasses.fields(part):
        default = field.default_factory() if callable(field.default_factory) else field.default
        if default is dataclasses.MISSING:
            shown = " [required]"
        else:
            line = yaml.safe_dump(dump(default, hints[field.name]), default_flow_style=True, width=1000)
            shown = "" if default in (None, ()) else f" [{line.strip().removesuffix('...').strip()}]"
        text = textwrap.wrap(docs.get(field.name, "") + shown, 72)
        entries.append(f"  --{field.name.replace('_', '-'):<16} " + ("\n" + " " * 21).join(text))
    return "\n".join(entries)


def documented(part: type) -> dict[str, str]:
    """Field -> its text in the ``Args`` of the class's docstring; ``a, b: text`` documents both."""
    _, _, block = inspect.cleandoc(part.__doc__ or "").partition("Args:\n")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?!  )", textwrap.dedent(block)):
        names, _, text = entry.partition(":")
        found |= {name.strip(): " ".join(text.split()) for name in names.split(",")}
    return found
