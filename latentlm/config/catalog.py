"""The recipes and launch configurations that come with the package, and how a recipe file is read."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from latentlm.config.schema import ConfigError, suggest


def recipe_names() -> dict[str, Path]:
    """Every recipe that comes with the package: ``text/nitp`` -> its file."""
    root = Path(str(files("latentlm_recipes")))
    found = sorted(path for path in root.glob("*/*.yaml") if path.parent.name not in ("accelerate", "studies"))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in found}


def accelerate_configs() -> dict[str, Path]:
    """Every launch configuration that comes with the package: ``fsdp2`` -> its file."""
    return {path.stem: path for path in sorted(Path(str(files("latentlm_recipes"))).glob("accelerate/*.yaml"))}


def read_recipe(name: str | Path) -> dict:
    """The plain data of a recipe: the name of a built-in one, a YAML file, or a run folder that holds recipe.yaml."""
    path = Path(name)
    if path.is_dir() and (path / "recipe.yaml").exists():
        path = path / "recipe.yaml"
    elif not path.is_file():
        known = recipe_names()
        if str(name) not in known:
            raise ConfigError(f"recipe '{name}': no such file and no built-in recipe{suggest(str(name), list(known))}")
        path = known[str(name)]
    try:
        text = path.read_text(encoding="utf-8")
        data, twice = yaml.safe_load(text), _given_twice(yaml.compose(text, yaml.SafeLoader))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that does not exist
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"recipe '{path}'{line}: not valid YAML ({problem})") from error
    if twice is not None:
        raise ConfigError(f"recipe '{path}', line {twice.start_mark.line + 1}: the key '{twice.value}' is given twice")
    if not isinstance(data, dict):
        raise ConfigError(f"recipe '{path}': must be a mapping with the blocks objective, model, data, optim, run")
    return data


def _given_twice(node: Any) -> Any:
    """First key that its mapping holds twice: YAML itself would silently take the last one."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        again = (key for place, (key, _) in enumerate(node.value) if key.value in keys[:place])
        inner = (_given_twice(value) for _, value in node.value)
        return next(again, None) or next(filter(None, inner), None)
    if isinstance(node, yaml.SequenceNode):
        return next(filter(None, map(_given_twice, node.value)), None)
    return None
