"""YAML of recipes, overrides and options, read with limits: no file makes reading endless or ends in a traceback."""

from typing import Any

import yaml

from latentlm.config.schema import ConfigError

# libyaml's parser, where PyYAML has it: ten times as fast
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 40
MAX_NODES = 50_000  # with every alias written out


class NotYamlError(ConfigError):
    """The text is not YAML at all, told in one line."""


def read_yaml(text: str, where: str) -> Any:
    """Plain data of one YAML document.

    Refused are nesting beyond `MAX_DEPTH`, anchors that contain themselves or stand for more than `MAX_NODES` values,
    tags such as ``!!bool``, and a key that its mapping holds twice, of which YAML itself would silently take the last.

    Args:
        text: the document.
        where: what to call it in a message, such as ``recipe 'own.yaml'``.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{where}: has {len(text)} characters; at most {MAX_CHARACTERS} are read")
    loader = None
    try:
        _check_events(text, where)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, where)
        if (twice := _given_twice(node)) is not None:
            raise ConfigError(f"{where}, line {_line(twice)}: the key '{twice.value}' is given twice")
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, KeyError) as error:  # ValueError: not a character, a date that does not exist
        if isinstance(error, ConfigError):
            raise
        mark = getattr(error, "problem_mark", None)
        # what ends too early is told of the last line, not of the one after it
        line = f", line {min(mark.line + 1, max(1, len(text.splitlines())))}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
        if "maximum nesting depth" in problem:  # libyaml gives up before the first event
            raise ConfigError(f"{where}{line}: more than {MAX_DEPTH} levels deep; write it flatter") from error
        raise NotYamlError(f"{where}{line}: not valid YAML ({problem})") from error
    finally:
        if loader is not None:
            loader.dispose()


def read_value(text: str, where: str) -> Any:
    """The value of an override or option; what is not YAML is the text itself."""
    try:
        return read_yaml(text, where)
    except NotYamlError:
        return text


def _check_events(text: str, where: str) -> None:
    """Depth and tags, told from the parser's events: it does not call itself, as building the document does."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ConfigError(f"{where}, line {_line(event)}: more than {MAX_DEPTH} levels deep; write it flatter")
        if (tag := getattr(event, "tag", None)) is not None:
            raise ConfigError(f"{where}, line {_line(event)}: the tag '{tag}' is not known here; leave it out")


def _check_size(root: yaml.Node, where: str) -> None:
    """Refuse anchors that contain themselves, or documents that are too large once every alias is written out."""
    known: dict[int, tuple[int, int]] = {}

    def measure(node: yaml.Node) -> tuple[int, int]:
        """Values and levels of a node."""
        if id(node) not in known:
            known[id(node)] = (0, 0)
            below = [measure(child) for child in _children(node)]
            size, depth = 1 + sum(size for size, _ in below), 1 + max((depth for _, depth in below), default=0)
            if size > MAX_NODES:
                raise ConfigError(f"{where}, line {_line(node)}: stands for more than {MAX_NODES} values; write less")
            if depth > MAX_DEPTH + 1:
                raise ConfigError(f"{where}, line {_line(node)}: more than {MAX_DEPTH} levels deep; write it flatter")
            known[id(node)] = size, depth
        elif not known[id(node)][0]:
            raise ConfigError(f"{where}, line {_line(node)}: an anchor contains itself; write it out")
        return known[id(node)]

    measure(root)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _given_twice(node: yaml.Node) -> Any:
    """First key that its mapping holds twice."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    return key
                seen.add(key.value)
    return next(filter(None, map(_given_twice, _children(node))), None)


def _line(marked: Any) -> int:
    return marked.start_mark.line + 1
