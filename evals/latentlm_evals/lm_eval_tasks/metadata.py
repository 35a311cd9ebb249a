"""What `lm_eval --metadata` tells the tasks, checked as a recipe is."""

import inspect
from dataclasses import dataclass, fields
from typing import Any

from latentlm.config.schema import ConfigError, parse, suggest
from latentlm.data import Question, QuestionSource
from latentlm.experiment.recipe import load_recipe
from latentlm_evals.reversal.options import Options
from latentlm_evals.reversal.score_run import questions_of

PASSED = ("version", "config_source")  # lm-eval's own, in the metadata of every task
FROM_PRETRAINED = (  # a model of lm-eval hands them on to transformers without naming them
    "attn_implementation",
    "device_map",
    "load_in_4bit",
    "load_in_8bit",
    "quantization_config",
    "use_safetensors",
)


@dataclass(frozen=True)
class Metadata:
    """One for all tasks, since lm-eval tells every task everything.

    Args:
        recipe: whose data ask: a name, a file or a run folder; by default reversal.
        suite: a test set by the name of its data part instead, as for `latentlm eval reversal`.
        limit: questions of each subset, split and answer type, spread over the facts; null: all.
        ranked: questions of each such group whose answers are ranked.
        candidates: most answers that a question's own is ranked among.
        source: held-out texts of latentlm_text, a file or a hub data set.
        max_documents: how many of them.
        ignore: other keys that are not for these tasks: arguments of a model, or metadata of another task.
    """

    recipe: str | None = None
    suite: QuestionSource | None = None
    limit: int | None = 60
    ranked: int = 30
    candidates: int = 30
    source: str | None = None
    max_documents: int | None = None
    ignore: tuple[str, ...] = ()

    def __post_init__(self):
        Options(limit=self.limit, ranked=self.ranked, candidates=self.candidates)
        if self.recipe is not None and self.suite is not None:
            raise ValueError("suite: names the questions, and so does recipe; leave one out")

    def questions(self) -> list[Question]:
        """All questions of the recipe or suite."""
        return questions_of(load_recipe(self.recipe or "reversal").source if self.suite is None else self.suite)


def read(given: dict[str, Any]) -> Metadata:
    """Keys of a task's metadata; ValueError for one that neither the tasks nor lm-eval know.

    lm-eval also puts the model's arguments there, so a typo can only be told by knowing theirs.
    """
    keys = [field.name for field in fields(Metadata)]
    told = parse(Metadata, {key: value for key, value in given.items() if key in keys}, "metadata")
    for key in set(given) - {*keys, *told.ignore, *PASSED, *FROM_PRETRAINED} - _arguments():
        hint = f'if it is an argument of your model, add "ignore": ["{key}"]'
        raise ConfigError(f"metadata: unknown key '{key}'{suggest(key, keys)}; {hint}")
    return told


def _arguments() -> set[str]:
    """Arguments of the kinds of models that lm-eval has loaded."""
    from lm_eval.api.model import LM

    kinds, names = [LM], set()
    while kinds:
        kind = kinds.pop()
        names.update(inspect.signature(kind).parameters)
        kinds += kind.__subclasses__()
    return names
