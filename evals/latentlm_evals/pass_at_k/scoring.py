"""Sampled answers to the test problems of a data part, checked by the data part itself."""

from collections.abc import Sequence
from dataclasses import replace
from math import comb

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from latentlm.config.schema import dump
from latentlm.data import Problem, VerifiableSource
from latentlm.experiment.recipe import load_recipe
from latentlm.result import Result, Task, TaskKey
from latentlm_evals.models.generation import check_room, continue_prompts, prompt_ids
from latentlm_evals.models.load import load
from latentlm_evals.models.run_dir import is_run, weights_of, write_result
from latentlm_evals.pass_at_k.options import Options
from latentlm_evals.statistics.bootstrap import bounded_mean

DEFAULTS = Options()
NAME = "pass_at_k"
VERSION = 2  # of the scores: raise it when the same model and problems would get other numbers
EXAMPLES = 3


def estimate(num_samples: int, num_right: int, k: int) -> float:
    """Probability that one of `k` answers is right, without bias, from `num_samples` answers of which some are.

        1 - C(n - c, k) / C(n, k)

    Source:    Chen et al. 2021, arXiv 2107.03374, equation 1.
    Checked:   tests/evals/other/test_pass_at_k.py - equals the mean over all subsets of k answers.

    >>> estimate(4, 1, 1), estimate(4, 1, 2), estimate(4, 4, 2)
    (0.25, 0.5, 1.0)
    """
    return 1 - comb(num_samples - num_right, k) / comb(num_samples, k)


def run(name: str, options: Options = DEFAULTS) -> Result:
    """Score a run folder, or any checkpoint or adapter of a causal language model, and write the result."""
    path = weights_of(name)
    own = load_recipe(name).source if is_run(name) else None
    data = options.data or own
    if not isinstance(data, VerifiableSource):
        raise ValueError(f"{name}: its data cannot check answers; name some, such as data=arithmetic")
    model, tokenizer = load(path, options.device)
    result = evaluate(model, tokenizer, data.problems("test")[: options.limit], options)
    warnings = list(result.warnings)
    if own is not None and data != own:
        warnings.append(f"other_data: the run was trained on {own}; its training may hold these problems")
    config = result.config | {"model_path": path, "data": repr(data)}
    result = replace(result, config=config, warnings=warnings)
    write_result(result, NAME, name, options.out)
    return result


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    options: Options = DEFAULTS,
) -> Result:
    """pass@k over the problems, with 95 % intervals that draw whole problems."""
    written = sample(model, tokenizer, [problem.prompt for problem in problems], options)
    right = [sum(problem.solved(text) for text in texts) for problem, texts in zip(problems, written, strict=True)]
    prompts, scores = [problem.prompt for problem in problems], {}
    for k in options.k:
        each = torch.tensor([estimate(options.samples, count, k) for count in right], dtype=torch.float64)
        scores[f"pass@{k}"] = bounded_mean(each, prompts, seed=options.seed, higher_is_better=True)
    warnings = []
    if not any(right):
        warnings.append("none_right: no sampled answer of any problem holds; see what was written in examples")
    counts = {"original": len(problems), "effective": len(problems)}
    rows = list(zip(problems, right, written, strict=True))[:EXAMPLES]
    examples = [
        {"prompt": problem.prompt, "answer": problem.answer, "right": count, "generated": texts[:EXAMPLES]}
        for problem, count, texts in rows
    ]
    return Result.measured(
        {TaskKey(NAME): Task(scores, "pass@k", counts, VERSION)},
        {"model": type(model).__name__, "options": dump(options)},
        warnings,
        examples={NAME: examples},
    )


def sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], options: Options
) -> list[list[str]]:
    """`options.samples` answers to each prompt, from the network's own distribution at the temperature."""
    rows = [ids for prompt in prompts for ids in [prompt_ids(tokenizer, prompt)] * options.samples]
    check_room(model, max(map(len, rows)), options.max_completion, "max_completion: the longest prompt", "lower it")
    limits = GenerationConfig(
        max_new_tokens=options.max_completion,
        do_sample=True,
        temperature=options.temperature,
        top_k=0,  # else transformers samples from the 50 likeliest
        top_p=1.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        texts = continue_prompts(model, tokenizer, rows, limits, options.batch_size, "sample")
    return [texts[i : i + options.samples] for i in range(0, len(texts), options.samples)]
