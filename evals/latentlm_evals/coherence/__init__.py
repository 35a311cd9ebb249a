"""Are a model's concepts whole or fractured? Scores of its hidden states, each beside its null."""

from typing import TYPE_CHECKING

from latentlm_evals.lazy import lazy

if TYPE_CHECKING:
    from latentlm_evals.coherence.options import Options
    from latentlm_evals.coherence.report import report_sections
    from latentlm_evals.coherence.scoring import run
    from latentlm_evals.coherence.terminal_table import table

__all__ = ["Options", "report_sections", "run", "table"]

__getattr__ = lazy(
    __name__,
    Options="options",
    report_sections="report",
    run="scoring",
    table="terminal_table",
)
