"""Sampled answers to the test problems of a data part, checked by the data part itself."""

from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from math import comb

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from latentlm.data import Problem, Verifiable
from latentlm.experiment.recipe import load_recipe
from latentlm_evals.models.generation import prompt_ids
from latentlm_evals.models.load import load
from latentlm_evals.models.run_dir import is_run, weights_of, write_result
from latentlm_evals.pass_at_k.options import Options
from latentlm_evals.statistics.bootstrap import bootstrap

DEFAULTS = Options()
VERSION = 1  # of the scores: raise it when the same model and problems would get other numbers
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


def run(name: str, options: Options = DEFAULTS) -> dict:
    """Score a run folder, or any checkpoint or adapter of a causal language model, and write the result."""
    path = weights_of(name)
    own = load_recipe(name).source if is_run(name) else None
    data = options.data or own
    if not isinstance(data, Verifiable):
        raise ValueError(f"{name}: its data cannot check answers; name some with --data, e.g. --data arithmetic")
    model, tokenizer = load(path, options.device)
    result = evaluate(model, tokenizer, data.problems("test")[: options.limit], options)
    result["config"] |= {"model_path": path, "data": repr(data)}
    if own is not None and data != own:
        result["warnings"].append(f"other_data: the run was trained on {own}; its training may hold these problems")
    write_result(result, "pass_at_k", name, options.out)
    return result


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    options: Options = DEFAULTS,
) -> dict:
    """pass@k over the problems, with 95 % intervals that draw whole problems."""
    written = sample(model, tokenizer, [problem.prompt for problem in problems], options)
    right = [sum(problem.solved(text) for text in texts) for problem, texts in zip(problems, written, strict=True)]
    prompts, scores = [problem.prompt for problem in problems], {}
    for k in options.k:
        each = torch.tensor([estimate(options.samples, count, k) for count in right], dtype=torch.float64)
        stderr, low, high = bootstrap(each, prompts, seed=options.seed)
        name = f"pass@{k}"
        scores |= {f"{name},none": float(each.mean()), f"{name}_stderr,none": stderr}
        scores |= {f"{name}_low,none": low, f"{name}_high,none": high}
    warnings = []
    if not any(right):
        warnings.append("none_right: no sampled answer of any problem holds; see what was written in examples")
    return {
        "results": {"pass_at_k": {"alias": "pass@k", **scores}},
        "config": {
            "model": type(model).__name__,
            **{
                name: getattr(options, name)
                for name in ("samples", "temperature", "max_completion", "batch_size", "seed")
            },
            "software": {name: version(name) for name in ("latentlm", "torch", "transformers")},
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
        "versions": {"pass_at_k": VERSION},
        "n-samples": {"pass_at_k": {"original": len(problems), "effective": len(problems)}},
        "higher_is_better": {"pass_at_k": {f"pass@{k}": True for k in options.k}},
        "examples": {
            "pass_at_k": [
                {"prompt": problem.prompt, "answer": problem.answer, "right": count, "generated": texts[:EXAMPLES]}
                for problem, count, texts in list(zip(problems, right, written, strict=True))[:EXAMPLES]
            ]
        },
        "warnings": warnings,
    }


def sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], options: Options
) -> list[list[str]]:
    """`options.samples` answers to each prompt, from the network's own distribution at the temperature."""
    rows = [ids for prompt in prompts for ids in [prompt_ids(tokenizer, prompt)] * options.samples]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    limits = GenerationConfig(
        max_new_tokens=options.max_completion,
        do_sample=True,
        temperature=options.temperature,
        top_k=0,  # else transformers samples from the 50 likeliest
        top_p=1.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
    )
    longest = max(map(len, rows)) + options.max_completion
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if room is not None and longest > room:
        raise ValueError(f"max_completion: prompt and answer need {longest} positions, the model has {room}; lower it")
    texts: list[str] = []
    own, training = model.generation_config, model.training
    model.generation_config = limits  # generate() would fill our gaps from the model's own file
    model.eval()
    try:
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(options.seed)
            for start in range(0, len(rows), options.batch_size):
                batch = rows[start : start + options.batch_size]
                width = max(map(len, batch))
                ids = torch.tensor([[pad] * (width - len(row)) + row for row in batch], device=model.device)
                mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch], device=model.device)
                out = model.generate(input_ids=ids, attention_mask=mask, generation_config=limits)
                texts += tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
    finally:
        model.generation_config = own
        model.train(training)
    return [texts[i : i + options.samples] for i in range(0, len(texts), options.samples)]
