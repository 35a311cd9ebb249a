"""Does a model that learned "A is B" also know "B is A"? Scores by what it writes and by how it ranks answers."""

from typing import TYPE_CHECKING

from latentlm_evals.lazy import lazy

if TYPE_CHECKING:
    from latentlm_evals.reversal.options import Options
    from latentlm_evals.reversal.report import report_sections
    from latentlm_evals.reversal.score_run import questions_of, run
    from latentlm_evals.reversal.scoring import evaluate
    from latentlm_evals.reversal.statements import in_context
    from latentlm_evals.reversal.terminal_table import table

__all__ = ["Options", "evaluate", "in_context", "questions_of", "report_sections", "run", "table"]

__getattr__ = lazy(
    __name__,
    Options="options",
    evaluate="scoring",
    in_context="statements",
    questions_of="score_run",
    report_sections="report",
    run="score_run",
    table="terminal_table",
)
