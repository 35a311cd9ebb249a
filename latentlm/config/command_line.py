"""`key=value` on a command line <-> a dataclass of options: the strict parser of recipes, and help from the docs.

Settings are written in one way everywhere, `latentlm train nitp training.max_steps=100` and
`latentlm eval reversal RUN limit=60`. Only what belongs to a command itself begins with dashes (`--help`).
"""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from latentlm.config.overrides import apply
from latentlm.config.reference import REQUIRED, keys_of
from latentlm.config.schema import ConfigError, fields_of, parse, suggest
from latentlm.config.yaml_reader import read_value


def split_words(words: Sequence[str]) -> tuple[list[str], list[tuple[str, str | None]]]:
    """Words that stand alone, and ``key=value`` pairs; ``--help`` is a key without a value.

    >>> split_words(["run", "limit=60", "data.kind=facts", "--help"])
    (['run'], [('limit', '60'), ('data.kind', 'facts'), ('help', None)])
    """
    alone, pairs = [], []
    for place, word in enumerate(words):
        key, equals, value = word.partition("=")
        if word in ("--help", "-h"):
            pairs.append(("help", None))
        elif word.startswith("-"):
            following = "".join(words[place + 1 : place + 2])
            value = value or (following if following and not following.startswith("-") else "true")
            raise ConfigError(
                f"{word}: options are written key=value; write {key.lstrip('-').replace('-', '_')}={value}"
            )
        elif equals and re.fullmatch(r"[\w.]+", key) and not Path(word).exists():
            pairs.append((key, value))
        else:
            alone.append(word)
    return alone, pairs


def parse_options(part: type, pairs: Sequence[tuple[str, str | None]]) -> Any:
    """Build the dataclass `part` from pairs of `split_words`; values are YAML, and one value may stand for a list."""
    fields = fields_of(part)
    values: dict[str, Any] = {}
    for key, text in pairs:
        name = key.partition(".")[0]
        if name not in fields:
            raise ConfigError(f"{key}: no such option{suggest(name, list(fields))}")
        if key in values:
            raise ConfigError(f"{key}: given twice; leave one out")
        if not text:
            raise ConfigError(f"{key}: needs a value")
        value = read_value(text, key)
        if not isinstance(value, int | float | str | list | dict | None):
            value = text  # a path may look like a date
        annotation = fields[name][0]
        many = any(get_origin(option) in (tuple, list) for option in (annotation, *get_args(annotation)))
        values[key] = [value] if many and key == name and value is not None and not isinstance(value, list) else value
    try:
        return parse(part, apply({}, list(values.items())), "-")
    except ConfigError as error:  # "-.limit: ..." -> "limit: ..."
        raise ConfigError(re.sub(r"^-[.:] ?", "", str(error))) from error


def describe_options(part: type) -> str:
    """One entry an option: its name, what it does out of the class's docs, and its default."""
    entries = []
    for key in keys_of(part):
        shown = " [required]" if key.default == REQUIRED else f" [{key.default}]"
        text = textwrap.wrap(key.meaning + ("" if key.default in ("null", "[]") else shown), 72)
        entries.append(f"  {key.path:<18} " + ("\n" + " " * 21).join(text))
    return "\n".join(entries)
