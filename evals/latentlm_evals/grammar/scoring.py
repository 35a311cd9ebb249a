"""Held-out loss above the exact entropy, by position, and a linear readout of every level at every depth."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from latentlm.backbones import find_backbone
from latentlm.backbones.collect_states import collect_states
from latentlm.config.schema import dump
from latentlm.data import Grammar
from latentlm.experiment.recipe import load_recipe
from latentlm.result import Estimate, Result, Task, TaskKey
from latentlm_evals.grammar.options import Options
from latentlm_evals.grammar.terminal_table import EXCESS, level_key, position_key
from latentlm_evals.models.load import load
from latentlm_evals.models.run_dir import is_run, weights_of, write_result
from latentlm_evals.statistics.bootstrap import bounded_mean, open_mean
from latentlm_evals.statistics.scores import chance_rate

DEFAULTS = Options()
NAME = "grammar"
VERSION = 1  # of the scores: raise it when the same model and sentences would get other numbers


def run(name: str, options: Options = DEFAULTS) -> Result:
    """Score a run folder, or any checkpoint of a causal language model, and write the result."""
    path = weights_of(name)
    own = load_recipe(name).source if is_run(name) else None
    grammar = options.data or own
    if not isinstance(grammar, Grammar):
        raise ValueError(f"{name}: its data is not a grammar; name one, such as data={{kind: grammar}}")
    model, tokenizer = load(path, options.device)
    result = evaluate(model, tokenizer, grammar, options)
    warnings = list(result.warnings)
    if own is not None and grammar != own:
        warnings.append(f"other_data: the run was trained on {own}; its training may hold these sentences")
    result = replace(result, config=result.config | {"model_path": path, "data": repr(grammar)}, warnings=warnings)
    write_result(result, NAME, name, options.out)
    return result


def evaluate(model: Any, tokenizer: PreTrainedTokenizerBase, grammar: Grammar, options: Options = DEFAULTS) -> Result:
    """The loss above the entropy, in nats a token after the first, and accuracies of the readouts.

    A readout is a ridge regression from the state at a symbol's last token, in the sentence, to the symbol. Half of the
    sentences fit it, a quarter chooses the depth, and the last quarter is scored, so that no choice is made on it.
    """
    levels = [level[: options.limit] for level in grammar.levels("held_out")]
    losses, states = _read(model.eval(), tokenizer, grammar, options)
    above = losses - grammar.surprise(levels[0])[:, 1:]
    names = list(range(len(above)))
    tasks = {EXCESS: _excess(above.mean(1), names, "loss above entropy", above.size)}
    for place, values in enumerate(above.T, 2):
        tasks[position_key(place)] = _excess(values, names, f"loss above entropy, token {place}", len(values))
    for level in range(1, grammar.depth + 1):
        tasks |= _level(states, levels[level], grammar.branching**level, level, options)
    return Result.measured(tasks, {"model": type(model).__name__, "options": dump(options)}, [])


def _excess(values: np.ndarray, names: list[int], alias: str, count: int) -> Task:
    estimate = open_mean(values, names, higher_is_better=False)
    return Task({"nats": estimate}, alias, {"original": count, "effective": len(names)}, VERSION)


def _level(states: list[Tensor], symbols: np.ndarray, width: int, level: int, options: Options) -> dict[TaskKey, Task]:
    """Accuracy at each depth and at the one that other sentences chose."""
    target, num = torch.tensor(symbols), len(symbols)
    fit, choose, test = slice(0, num // 2), slice(num // 2, 3 * num // 4), slice(3 * num // 4, num)
    names = [row for row in range(len(target[test])) for _ in range(target.shape[1])]
    chance, hits = Estimate(chance_rate(symbols[test].ravel().tolist())), []
    for state in states:
        ends = state[:, width - 1 :: width]
        weights = _ridge(ends[fit], target[fit], options.penalty)
        guess = (_with_one(ends) @ weights).argmax(-1)
        hits.append((guess == target).double())
    best = int(torch.stack([hit[choose].mean() for hit in hits]).argmax())
    counts, found = {"original": len(names), "effective": len(target[test])}, {}
    for depth in (*range(len(states)), None):
        hit = hits[best if depth is None else depth][test]
        scores = {"acc": bounded_mean(hit.flatten().numpy(), names, higher_is_better=True), "chance": chance}
        scores |= {"depth": Estimate(float(best))} if depth is None else {}
        where = "chosen depth" if depth is None else f"depth {depth}"
        found[level_key(level, depth)] = Task(scores, f"level {level}, {where}", counts, VERSION)
    return found


def _ridge(states: Tensor, symbols: Tensor, penalty: float) -> Tensor:
    """``(X'X + penalty I)^-1 X'Y`` of states ``[n u d]`` with a constant, Y one column for each symbol."""
    x = _with_one(states).flatten(0, 1)
    y = F.one_hot(symbols.flatten()).to(x.dtype)
    return torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)


def _with_one(states: Tensor) -> Tensor:
    return torch.cat([states, torch.ones_like(states[..., :1])], -1)


def _read(
    model: Any, tokenizer: PreTrainedTokenizerBase, grammar: Grammar, options: Options
) -> tuple[np.ndarray, list[Tensor]]:
    """Losses ``[n t-1]`` of the tokens after the first, and states ``[n t d]`` at every depth, all in float64."""
    layers = find_backbone(model).layers
    losses: list[Tensor] = []
    states: list[list[Tensor]] = []
    for ids in _batches(tokenizer, grammar, options):
        batch = ids.to(next(model.parameters()).device)

        def forward(batch: Tensor = batch) -> None:
            logits = model(input_ids=batch, use_cache=False).logits[:, :-1].double()
            losses.append(F.cross_entropy(logits.transpose(1, 2), batch[:, 1:], reduction="none").cpu())

        with torch.no_grad():
            states.append(collect_states(forward, layers, range(len(layers) + 1), lambda state: state.double().cpu()))
    return torch.cat(losses).numpy(), [torch.cat(parts) for parts in zip(*states, strict=True)]


def _batches(tokenizer: PreTrainedTokenizerBase, grammar: Grammar, options: Options) -> Iterator[Tensor]:
    texts = [document.text for document in grammar.held_out_documents()[: options.limit]]
    for start in range(0, len(texts), options.batch_size):
        ids = tokenizer(texts[start : start + options.batch_size], add_special_tokens=False)["input_ids"]
        if wrong := {len(each) for each in ids} - {grammar.length}:
            raise ValueError(
                f"tokenizer: reads a sentence of {grammar.length} symbols as {min(wrong)} tokens; use a model trained "
                "on a grammar"
            )
        yield torch.tensor(ids)
