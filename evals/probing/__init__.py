"""What can be read off a network's states, at which depth, and how cheaply."""

from .evaluate import evaluate, run
from .options import Options
from .table import table

__all__ = ["Options", "evaluate", "run", "table"]
