"""How often does one of k sampled answers hold, where a program can check them?"""

from .evaluate import estimate, evaluate, run
from .options import Options
from .table import table

__all__ = ["Options", "estimate", "evaluate", "run", "table"]
