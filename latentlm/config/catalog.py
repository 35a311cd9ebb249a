"""The recipes and launch configurations that come with the package, and how a recipe file is read."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from latentlm.config.migration import check_data, renamed_recipe
from latentlm.config.schema import ConfigError, suggest
from latentlm.config.yaml_reader import read_yaml


def _files(pattern: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted(Path(str(files("latentlm_recipes"))).glob(pattern))}


def method_names() -> dict[str, Path]:
    """Every method, an objective and what it needs of the data: ``nitp`` -> its file."""
    return _files("methods/text/*.yaml") | _files("methods/vision/*.yaml")


def experiment_names() -> dict[str, Path]:
    """Every experiment, a method with model, data and training: ``facts`` -> its file."""
    return _files("experiments/*.yaml")


def model_names() -> dict[str, Path]:
    """Every model block that recipes can name: ``tiny_llama`` -> its file."""
    return _files("models/*.yaml")


def paper_names() -> dict[str, Path]:
    """Every method with all values of its paper, for a data set of one's own: ``dino_paper`` -> its file."""
    return _files("papers/*.yaml")


def recipe_names() -> dict[str, Path]:
    """Everything that `latentlm train` knows by name: experiments, then methods."""
    return experiment_names() | method_names()


def accelerate_configs() -> dict[str, Path]:
    """Every launch configuration that comes with the package: ``fsdp2`` -> its file."""
    return _files("accelerate/*.yaml")


def read_recipe(name: str | Path) -> dict[str, Any]:
    """The plain data of one file: that of a name, a YAML file, or the recipe.yaml of a run folder."""
    path = Path(name)
    if path.is_dir() and (path / "recipe.yaml").exists():
        path = path / "recipe.yaml"
    elif not path.is_file():
        check_recipe(str(name), "recipe")
        known = recipe_names() | paper_names()
        if str(name) not in known:
            raise ConfigError(f"recipe '{name}': no such file and no built-in recipe{suggest(str(name), list(known))}")
        path = known[str(name)]
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"recipe '{path}': not valid YAML (it is not UTF-8 text)") from error
    data = read_yaml(text, f"recipe '{path}'")
    if not isinstance(data, dict):
        raise ConfigError(f"recipe '{path}': must be a mapping with the blocks objective, model, data, training")
    check_data(data, f"recipe '{path}'")
    return data


def check_recipe(name: str, where: str) -> None:
    """Refuse an old name of a recipe, saying its new one."""
    new = renamed_recipe(name)
    if new in recipe_names():
        raise ConfigError(f"{where} '{name}' is now '{new}'")
