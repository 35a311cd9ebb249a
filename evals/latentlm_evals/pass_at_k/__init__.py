"""How often does one of k sampled answers hold, where a program can check them?"""

from typing import TYPE_CHECKING

from latentlm_evals.lazy import lazy

if TYPE_CHECKING:
    from latentlm_evals.pass_at_k.options import Options
    from latentlm_evals.pass_at_k.report import report_sections
    from latentlm_evals.pass_at_k.scoring import estimate, evaluate, run
    from latentlm_evals.pass_at_k.terminal_table import table

__all__ = ["Options", "estimate", "evaluate", "report_sections", "run", "table"]

__getattr__ = lazy(
    __name__,
    Options="options",
    estimate="scoring",
    evaluate="scoring",
    report_sections="report",
    run="scoring",
    table="terminal_table",
)
