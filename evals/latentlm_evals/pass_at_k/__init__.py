"""How often does one of k sampled answers hold, where a program can check them?"""

from latentlm_evals.pass_at_k.evaluate import estimate, evaluate, run
from latentlm_evals.pass_at_k.options import Options
from latentlm_evals.pass_at_k.table import table

__all__ = ["Options", "estimate", "evaluate", "run", "table"]
