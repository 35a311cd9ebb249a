"""What can a frozen ViT's features tell: classes, factors of every level, pixels, at every depth, beside the floors.

Uses scenes or any set of images; the run's own by default. Writes eval/vision.json and pictures beside it.
"""

from typing import TYPE_CHECKING

from latentlm_evals.lazy import lazy

if TYPE_CHECKING:
    from latentlm_evals.vision.options import Options
    from latentlm_evals.vision.report import report_sections
    from latentlm_evals.vision.score_run import run
    from latentlm_evals.vision.scoring import evaluate
    from latentlm_evals.vision.terminal_table import table

__all__ = ["Options", "evaluate", "report_sections", "run", "table"]

__getattr__ = lazy(
    __name__,
    Options="options",
    evaluate="scoring",
    report_sections="report",
    run="score_run",
    table="terminal_table",
)
