"""What can be read off a network's states, at which depth, and how cheaply."""

from .evaluate import Encoder, evaluate, run
from .options import Options
from .properties import Property
from .table import table

__all__ = ["Encoder", "Options", "Property", "evaluate", "run", "table"]
