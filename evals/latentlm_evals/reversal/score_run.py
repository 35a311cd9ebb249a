"""From a folder on disk to a scored model, as the command line does it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from latentlm.data import Arithmetic, Images, Question, QuestionSource, TextSource
from latentlm.experiment.recipe import load_recipe
from latentlm.result import Result
from latentlm.whole_files import write_text
from latentlm_evals.models.load import load
from latentlm_evals.models.run_dir import is_run, weights_of, write_result
from latentlm_evals.reversal.groups import NAME
from latentlm_evals.reversal.options import Options
from latentlm_evals.reversal.scoring import evaluate
from latentlm_evals.reversal.shortcut import echoes
from latentlm_evals.reversal.statements import in_context

DEFAULTS = Options()
EXAMPLES = 3  # questions of each task that the result shows


def run(name: str, options: Options = DEFAULTS) -> Result:
    """Score a run folder, or any checkpoint or adapter of a causal language model, and write the result."""
    path = weights_of(name)
    own = load_recipe(name).source if is_run(name) else None
    chosen = _part(options.data) if options.data is not None else own
    parts: list[TextSource | Images] = [*options.suite] or ([] if chosen is None else [chosen])
    if not parts:
        raise ValueError(f"{name}: has no recipe.yaml to take test questions from; give data=RECIPE or suite=NAME")
    asked = [questions_of(part) for part in parts]
    stated = [
        in_context(part, questions)
        for part, questions in zip(parts, asked, strict=True)
        if options.in_context and isinstance(part, QuestionSource)
    ]
    model, tokenizer = load(path, options.device)
    result = evaluate(
        model,
        tokenizer,
        spread([question for questions in asked for question in questions], options.limit),
        options,
        in_context=spread([question for questions, _ in stated for question in questions], options.limit),
    )
    warnings = result.warnings + [warning for _, warnings in stated for warning in warnings]
    for part in parts:  # another seed has other names, which this run has never seen
        if own is not None and type(part) is type(own) and part != own:
            warnings.append(f"other_data: the run was trained on {own}, not on the tested {part}")
    samples: dict[str, list[dict]] = result.extra["samples"]
    examples = {task: rows[:EXAMPLES] for task, rows in samples.items()}
    result = replace(
        result,
        config=result.config | {"model_path": path, "data": repr(parts)},
        warnings=warnings,
        extra={"summary": result.extra["summary"], "examples": examples},
    )
    write_result(result, NAME, name, options.out)
    if options.samples is not None:
        _write_samples(samples, Path(options.samples))
    return result


def _write_samples(samples: dict[str, list[dict]], target: Path) -> None:
    lines = (json.dumps({"task": task, **row}, ensure_ascii=False) for task, rows in samples.items() for row in rows)
    write_text(target, "".join(f"{line}\n" for line in lines))


def questions_of(part: TextSource | Images) -> list[Question]:
    """All test questions of a data part, and echoes where it has none of its own."""
    if isinstance(part, Arithmetic):
        raise ValueError("arithmetic: has no reverse direction to ask for: score it with latentlm eval pass_at_k")
    if isinstance(part, Images):
        raise ValueError("images: have no questions to ask: give suite=NAME, or use latentlm eval vision")
    questions = part.questions()
    return questions + (echoes(part, questions) if isinstance(part, QuestionSource) else [])


def _part(data: str | TextSource) -> TextSource | Images:
    return load_recipe(data).source if isinstance(data, str) else data


def spread(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """At most `limit` questions of each subset, split and answer type, evenly spaced: every fact has its turn."""
    if limit is None:
        return list(questions)
    groups: dict[tuple[str, str, str], list[Question]] = {}
    for question in questions:
        groups.setdefault((question.subset, question.split, question.answer_type), []).append(question)
    places = [(rows, min(limit, len(rows))) for rows in groups.values()]
    return [rows[i * len(rows) // count] for rows, count in places for i in range(count)]
