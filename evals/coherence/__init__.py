"""Are a model's concepts whole or fractured? Scores of its hidden states, each beside its null."""

from .options import Options
from .suite import run
from .table import table

__all__ = ["Options", "run", "table"]
