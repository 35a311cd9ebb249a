"""What does a model answer on a test file of your own: chats, or prompts and completions?"""

from typing import TYPE_CHECKING

from latentlm_evals.lazy import lazy

if TYPE_CHECKING:
    from latentlm_evals.answers.options import Options
    from latentlm_evals.answers.regex_language import same_language
    from latentlm_evals.answers.report import report_sections
    from latentlm_evals.answers.score_run import evaluate, run
    from latentlm_evals.answers.terminal_table import table

__all__ = ["Options", "evaluate", "report_sections", "run", "same_language", "table"]

__getattr__ = lazy(
    __name__,
    Options="options",
    evaluate="score_run",
    report_sections="report",
    run="score_run",
    same_language="regex_language",
    table="terminal_table",
)
