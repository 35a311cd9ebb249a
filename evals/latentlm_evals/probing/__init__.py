"""What can be read off a network's states, at which depth, and how cheaply."""

from latentlm_evals.probing.evaluate import Encoder, evaluate, run
from latentlm_evals.probing.options import Options
from latentlm_evals.probing.properties import Property
from latentlm_evals.probing.table import table

__all__ = ["Encoder", "Options", "Property", "evaluate", "run", "table"]
