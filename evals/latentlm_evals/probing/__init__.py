"""What can be read off a network's states, at which depth, and how cheaply."""

from typing import TYPE_CHECKING

from latentlm_evals.lazy import lazy

if TYPE_CHECKING:
    from latentlm_evals.probing.options import Options
    from latentlm_evals.probing.properties import Property
    from latentlm_evals.probing.report import report_sections
    from latentlm_evals.probing.scoring import Encoder, evaluate, run
    from latentlm_evals.probing.terminal_table import table

__all__ = ["Encoder", "Options", "Property", "evaluate", "report_sections", "run", "table"]

__getattr__ = lazy(
    __name__,
    Encoder="scoring",
    Options="options",
    Property="properties",
    evaluate="scoring",
    report_sections="report",
    run="scoring",
    table="terminal_table",
)
