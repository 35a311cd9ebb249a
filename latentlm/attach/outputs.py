"""What a model with heads returns beside its own outputs."""

import dataclasses
from functools import cache
from typing import Any


@cache
def extended(output: type) -> type:
    """An output class of transformers that also has ``loss``, ``latent_loss`` and ``data_loss``.

    A declared class: data parallel wrappers rebuild outputs from their class and refuse keys added later.
    """
    known = {field.name for field in dataclasses.fields(output)}
    fields = [(name, Any, None) for name in ("loss", "latent_loss", "data_loss") if name not in known]
    return dataclasses.make_dataclass(f"Latent{output.__name__}", fields, bases=(output,))
