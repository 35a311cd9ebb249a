"""From a folder on disk, or a model in memory, to scored answers and losses."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from latentlm.config.schema import dump
from latentlm.data.counter_rng import example_keys
from latentlm.data.text.encoding_report import some
from latentlm.result import Estimate, Result, Task, TaskKey
from latentlm.whole_files import write_text
from latentlm_evals.answers.options import Options
from latentlm_evals.answers.prompts import Prompts, build_prompts, most_positions, positions_of
from latentlm_evals.answers.rows import read_asked
from latentlm_evals.answers.scorers import Scorer, exact, load_scorer, normalized
from latentlm_evals.answers.texts import Texts, read_texts, text_task
from latentlm_evals.models.decoding import Draws, Written, write_after
from latentlm_evals.models.generation import SPARE_TOKENS, causal_model
from latentlm_evals.models.load import load, load_tokenizer
from latentlm_evals.models.losses import token_losses
from latentlm_evals.models.run_dir import weights_of, write_result
from latentlm_evals.statistics.bootstrap import bounded_mean, open_mean, ratio

NAME = "answers"
VERSION = 1  # of the scores: raise it when the same model and rows would get other numbers
EXAMPLES = 3  # answers that the result shows


@dataclass(frozen=True)
class Prepared:
    """What is asked and read, as tokens."""

    prompts: Prompts | None
    texts: Texts | None
    scorer: Scorer | None


def run(name: str, options: Options) -> Result:
    """Score a run folder, or any checkpoint or adapter of a causal language model, and write the result."""
    path = weights_of(name)
    scorer = load_scorer(options.scorer) if options.scorer is not None else None
    prepared = _prepare(load_tokenizer(path), positions_of(path), scorer, options)
    model, tokenizer = load(path, options.device)
    result = _score(model, tokenizer, prepared, options)
    samples: list[dict[str, Any]] = result.extra["samples"]
    result = replace(
        result, config=result.config | {"model_path": path}, extra={"examples": {NAME: samples[:EXAMPLES]}}
    )
    write_result(result, NAME, name, options.out)
    if options.samples is not None:
        lines = (json.dumps({"task": NAME, **sample}, ensure_ascii=False) for sample in samples)
        write_text(Path(options.samples), "".join(f"{line}\n" for line in lines))
    return result


def evaluate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: Options) -> Result:
    """Score a model in memory: task ``answers``, and ``answers/text`` with `options.text`.

    ``extra`` holds ``samples``, a row for each answer; no file is written.
    """
    scorer = load_scorer(options.scorer) if options.scorer is not None else None
    return _score(model, tokenizer, _prepare(tokenizer, most_positions(model.config), scorer, options), options)


def _prepare(
    tokenizer: PreTrainedTokenizerBase, positions: int | None, scorer: Scorer | None, options: Options
) -> Prepared:
    prompts = texts = None
    if options.source is not None:
        asking = read_asked(options.source, options.turns, options.limit)
        prompts = build_prompts(asking, tokenizer, positions, options.max_new_tokens, SPARE_TOKENS)
    if options.text is not None:
        texts = read_texts(options.text, tokenizer, options.limit)
    return Prepared(prompts, texts, scorer)


def _score(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prepared: Prepared, options: Options) -> Result:
    causal_model(model)
    tasks: dict[TaskKey, Task] = {}
    samples: list[dict[str, Any]] = []
    warnings: list[str] = []
    if (prompts := prepared.prompts) is not None:
        answers = _answers(model, tokenizer, prompts, options)
        samples = _samples(prompts, answers, prepared.scorer)
        right = [prompt.right for prompt in prompts.rows]
        losses = token_losses(model, tokenizer, right, most_rows=options.batch_size)
        tasks[TaskKey(NAME)] = _task(prompts, samples, losses, prepared.scorer, options)
        warnings += _warnings(prompts, samples, prepared.scorer)
    if prepared.texts is not None:
        task, notes = text_task(model, tokenizer, prepared.texts, options)
        tasks[TaskKey(NAME, ("text",))] = task
        warnings += notes
    config = {"model": type(model).__name__, "options": dump(options)}
    return Result.measured(tasks, config, warnings, samples=samples)


def _answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Prompts, options: Options
) -> list[list[Written]]:
    """`options.num_samples` answers to each prompt."""
    limits = GenerationConfig(max_new_tokens=prompts.max_new_tokens, do_sample=False, num_beams=1)
    places = [(i, k) for i in range(len(prompts.rows)) for k in range(options.num_samples)]
    # the longest first: what does not fit in memory is told at once, and little is padded
    places.sort(key=lambda place: (-len(prompts.rows[place[0]].ids), place))
    draws = None
    if options.temperature:
        keys = [example_keys(options.seed, k, np.array([i]))[0] for i, k in places]
        draws = Draws(options.temperature, [int(key) & (2**63 - 1) for key in keys])
    ids = [prompts.rows[i].ids for i, _ in places]
    own = model.generation_config.eos_token_id  # of a chat model, often the end of a turn
    stop = {*prompts.stop, *([own] if isinstance(own, int) else own or [])}
    written = write_after(model, tokenizer, ids, limits, options.batch_size, "answer", stop=sorted(stop), draws=draws)
    found = dict(zip(places, written, strict=True))
    return [[_cut(found[i, k], options.stop) for k in range(options.num_samples)] for i in range(len(prompts.rows))]


def _cut(written: Written, stop: Sequence[str]) -> Written:
    """Until the first of the texts that end an answer."""
    ends = [place for text in stop if (place := written.text.find(text)) >= 0]
    return Written(written.text[: min(ends)], True) if ends else written


def _samples(prompts: Prompts, answers: Sequence[Sequence[Written]], scorer: Scorer | None) -> list[dict[str, Any]]:
    """A row for each answer, with all its scores."""
    rows = []
    for prompt, written in zip(prompts.rows, answers, strict=True):
        gold = prompt.asked.gold
        for number, answer in enumerate(written):
            row: dict[str, Any] = {"row": prompt.asked.row}
            row |= {"turn": prompt.asked.turn} if prompt.asked.turn is not None else {}
            row |= {"sample": number} if len(written) > 1 else {}
            row |= {"prompt": prompt.text, "answer": answer.text, "gold": gold, "ended": answer.ended}
            row |= {"exact": exact(answer.text, gold), "normalized": normalized(answer.text, gold)}
            if scorer is not None:
                row[scorer.name] = scorer(answer.text, gold, f"row {prompt.asked.row}")
            rows.append(row)
    return rows


def _task(
    prompts: Prompts,
    samples: Sequence[dict[str, Any]],
    losses: Sequence[float],
    scorer: Scorer | None,
    options: Options,
) -> Task:
    """Means over answers, with intervals that draw whole rows of the file."""
    entities = [sample["row"] for sample in samples]
    scores: dict[str, Estimate] = {}
    for name in ["exact", "normalized", *([scorer.name] if scorer is not None else [])]:
        values = [sample[name] for sample in samples]
        mean = bounded_mean if all(0 <= value <= 1 for value in values) else open_mean
        scores[name] = mean(values, entities, seed=options.seed, higher_is_better=True)
    cut = [float(not sample["ended"]) for sample in samples]
    scores["cut"] = bounded_mean(cut, entities, seed=options.seed, higher_is_better=False)
    asked = [prompt.asked.row for prompt in prompts.rows]
    tokens = [prompt.right.count for prompt in prompts.rows]
    size = [len(prompt.asked.gold.encode()) for prompt in prompts.rows]
    scores["nats_per_token"] = ratio(losses, tokens, asked, seed=options.seed, higher_is_better=False)
    bits = [loss / math.log(2) for loss in losses]
    scores["bits_per_byte"] = ratio(bits, size, asked, seed=options.seed, higher_is_better=False)
    counts = {
        "original": prompts.num_rows,
        "effective": len(set(asked)),
        "prompts": len(prompts.rows),
        "answers": len(samples),
        "tokens": sum(tokens),
        "bytes": sum(size),
    }
    return Task(scores, "answers", counts, VERSION)


def _warnings(prompts: Prompts, samples: Sequence[dict[str, Any]], scorer: Scorer | None) -> list[str]:
    lines = []
    if prompts.skipped:
        lines.append(f"skipped: {len(prompts.skipped)} of {prompts.num_rows} rows: {some(prompts.skipped)}")
    if prompts.short:
        lines.append(
            f"short: {prompts.short} right answers have more than the {prompts.max_new_tokens} tokens that an "
            "answer may have; raise max_new_tokens"
        )
    cut = sum(not sample["ended"] for sample in samples)
    if cut == len(samples):
        lines.append(
            f"never_ends: no answer ends within {prompts.max_new_tokens} tokens, so none can be exact; has the model "
            "learned to end its turns? give stop, or raise max_new_tokens"
        )
    if scorer is not None:
        lines += scorer.notes([prompt.asked.gold for prompt in prompts.rows])
    return lines
