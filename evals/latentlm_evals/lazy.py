"""Names of a package that are imported when they are first used."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy(package: str, **homes: str) -> Callable[[str], Any]:
    """``__getattr__`` of a package that takes each name from a module of it.

    torch and transformers take seconds to import: a list of options and a report should not wait for them.

    Args:
        package: its name.
        homes: name -> module in the package.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return get
