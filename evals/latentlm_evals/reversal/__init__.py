"""Does a model that learned "A is B" also know "B is A"? Scores by what it writes and by how it ranks answers."""

from latentlm_evals.reversal.evaluate import evaluate
from latentlm_evals.reversal.in_context import in_context
from latentlm_evals.reversal.options import Options
from latentlm_evals.reversal.run import questions, run
from latentlm_evals.reversal.table import table

__all__ = ["Options", "evaluate", "in_context", "questions", "run", "table"]
