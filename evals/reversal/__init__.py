"""Does a model that learned "A is B" also know "B is A"? Scores by what it writes and by how it ranks answers."""

from .checkpoint import questions, run
from .context import in_context
from .groups import evaluate
from .options import Options
from .table import table

__all__ = ["Options", "evaluate", "in_context", "questions", "run", "table"]
