"""How far is a model from a grammar whose entropy is known, and which of its levels can be read off the states?"""

from typing import TYPE_CHECKING

from latentlm_evals.lazy import lazy

if TYPE_CHECKING:
    from latentlm_evals.grammar.options import Options
    from latentlm_evals.grammar.report import report_sections
    from latentlm_evals.grammar.scoring import evaluate, run
    from latentlm_evals.grammar.terminal_table import table

__all__ = ["Options", "evaluate", "report_sections", "run", "table"]

__getattr__ = lazy(
    __name__,
    Options="options",
    evaluate="scoring",
    report_sections="report",
    run="scoring",
    table="terminal_table",
)
