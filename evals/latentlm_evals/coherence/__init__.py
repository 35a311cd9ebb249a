"""Are a model's concepts whole or fractured? Scores of its hidden states, each beside its null."""

from latentlm_evals.coherence.evaluate import run
from latentlm_evals.coherence.options import Options
from latentlm_evals.coherence.table import table

__all__ = ["Options", "run", "table"]
