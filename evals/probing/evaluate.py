"""Every depth by every property: how well it is read off, how cheaply, and what a null reads off."""

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentlm.data import Facts
from latentlm.recipe import load_recipe

from ..encoder import TextEncoder, load_encoder
from ..runs import is_run, write_result
from .fit import accuracy, codelength, directions, fit_linear, fit_mlp, logits, mlp_logits, standardized
from .options import Options
from .properties import Property, attributes, linguistic

VERSION = 1


def run(name: str, options: Options) -> dict:
    """Probe a run folder or any checkpoint, and write the result."""
    encoder = load_encoder(name, options.device)
    if options.cache is not None:
        encoder = encoder.cached(options.cache)
    found = linguistic(options.limit, options.seed)
    source = options.data or (name if is_run(name) else None)
    facts = load_recipe(source).data if source is not None else None
    if isinstance(facts, Facts):
        found += attributes(facts, options.limit)
    result = evaluate(encoder, found, options)
    write_result(result, "probe", name, options.out)
    return result


def evaluate(encoder: TextEncoder, properties: Sequence[Property], options: Options) -> dict:
    """Result in lm-eval's shape; ``matrices`` holds accuracy, chance at 0 and perfect at 1, of depths by properties."""
    depths = list(range(encoder.num_layers + 1)) if options.depths is None else list(options.depths)
    twin = encoder.random_init(options.seed) if options.null else None
    results: dict[str, dict[str, Any]] = {}
    samples: dict[str, dict[str, int]] = {}
    warnings: list[str] = []
    matrix: list[list[float]] = []
    kept: list[str] = []
    for each in properties:
        train, test = split(each, options.seed)
        y = torch.tensor(each.labels)
        if told := unusable(each, y, train, test):
            warnings.append(told)
            continue
        if len(train) <= encoder.dim:
            warnings.append(f"{each.name}: {len(train)} training sentences for {encoder.dim} dimensions; raise limit")
        if told := _unknown(encoder.tokenizer, each):
            warnings.append(told)
        states = _read(encoder, each, depths, options)
        rows = probe(states, each, train, test, options.seed)
        if twin is not None:
            null = _read(twin, each, depths, options)
            x, x_test = standardized(null[:, train], null[:, test])
            rows["random_init"] = accuracy(logits(x_test, fit_linear(x, y[train], each.classes)), y[test])
        chance = float(torch.bincount(y[test]).max() / len(test))
        for place, depth in enumerate(depths):
            values = {f"{key},none": _number(value[place]) for key, value in rows.items()}
            error = math.sqrt(max(values["acc,none"] * (1 - values["acc,none"]), 0) / len(test))
            task = f"probe/{each.name}/{depth}"
            results[task] = {"alias": f"{each.name}, depth {depth}", **values, "acc_stderr,none": error}
            results[task]["chance,none"] = chance
            samples[task] = {"original": len(each.texts), "effective": len(test), "train": len(train)}
        matrix.append([max(0.0, (float(acc) - chance) / (1 - chance)) for acc in rows["acc"]])
        kept.append(each.name)
    if not results:
        raise ValueError(f"probe: no property could be probed: {'; '.join(warnings)}")
    return {
        "results": results,
        "matrices": {
            "probe": {"rows": depths, "columns": kept, "values": [list(row) for row in zip(*matrix, strict=True)]}
        },
        "warnings": warnings,
        "versions": dict.fromkeys(results, VERSION),
        "n-samples": samples,
        "config": {
            "model": encoder.name,
            "depths": depths,
            "limit": options.limit,
            "at": options.at,
            "seed": options.seed,
        },
        "higher_is_better": {task: {"acc": True, "selectivity": True, "compression": True} for task in results},
    }


def probe(states: Tensor, each: Property, train: list[int], test: list[int], seed: int) -> dict[str, Tensor]:
    """Scores of states ``[l n d]`` at every depth ``[l]``."""
    y, classes = torch.tensor(each.labels), each.classes
    x, x_test = standardized(states[:, train], states[:, test])
    scores = {"acc": accuracy(logits(x_test, fit_linear(x, y[train], classes)), y[test])}
    scores["mlp_gap"] = accuracy(mlp_logits(x_test, fit_mlp(x, y[train], classes)), y[test]) - scores["acc"]
    rng = random.Random(f"probing/{seed}/{each.name}")
    shuffled = torch.tensor(rng.sample(each.labels, len(each.labels)))
    scores["shuffled"] = accuracy(logits(x_test, fit_linear(x, shuffled[train], classes)), y[test])
    scores["selectivity"] = _selectivity(states, each, y, rng)
    uniform = len(train) * math.log2(classes)
    order = torch.tensor(rng.sample(range(len(train)), len(train)))
    scores["compression"] = uniform / codelength(x[:, order], y[train][order], classes)
    scores["directions"] = directions(x, y[train], x_test, y[test], classes)
    return scores


def _selectivity(states: Tensor, each: Property, y: Tensor, rng: random.Random) -> Tensor:
    """Accuracy minus that on labels drawn at random for each entity, where training and test share the entities.

    Source: Hewitt & Liang 2019, arXiv:1909.03368.
    """
    drawn = {entity: rng.choice(each.labels) for entity in dict.fromkeys(each.entities)}
    control = torch.tensor([drawn[entity] for entity in each.entities])
    order = rng.sample(range(len(y)), len(y))
    train, test = order[: len(order) * 3 // 4], order[len(order) * 3 // 4 :]
    x, x_test = standardized(states[:, train], states[:, test])
    task, random_task = (
        accuracy(logits(x_test, fit_linear(x, labels[train], each.classes)), labels[test]) for labels in (y, control)
    )
    return task - random_task


def split(each: Property, seed: int) -> tuple[list[int], list[int]]:
    """Places of training and test sentences, which share neither entity nor template; the mixed rest is left out."""
    rng = random.Random(f"probing/{seed}/{each.name}/split")
    held: list[set[str]] = []
    for column in (each.entities, each.templates):
        names = sorted(set(column))
        held.append(set(rng.sample(names, max(1, len(names) // 4))))
    if each.entities == each.templates:
        held[1] = held[0]
    inside = [
        (entity in held[0], template in held[1]) for entity, template in zip(each.entities, each.templates, strict=True)
    ]
    train = [place for place, where in enumerate(inside) if where == (False, False)]
    return train, [place for place, where in enumerate(inside) if where == (True, True)]


def unusable(each: Property, y: Tensor, train: list[int], test: list[int]) -> str | None:
    """Why a property says nothing, if so."""
    for name, places in (("training", train), ("test", test)):
        if len(places) < 8:
            return f"{each.name}: left out, {len(places)} {name} sentences are too few; raise limit"
        if len(set(y[places].tolist())) < 2:
            return f"{each.name}: left out, its {name} sentences are of one class"
    return None


def _unknown(tokenizer: Any, each: Property) -> str | None:
    """Words that the tokenizer does not know are all read alike, so nothing can be told from them."""
    ids = [token for text in each.texts[:200] for token in tokenizer(text)["input_ids"]]
    share = sum(token == tokenizer.unk_token_id for token in ids) / len(ids)
    return (
        f"{each.name}: {share:.0%} of the tokens are unknown words; its scores mean nothing" if share > 0.05 else None
    )


def _read(encoder: TextEncoder, each: Property, depths: list[int], options: Options) -> Tensor:
    found = encoder.states(each.texts, options.at, depths=depths, batch_size=options.batch_size)  # type: ignore[arg-type]
    return found.transpose(0, 1).contiguous()


def _number(value: Tensor) -> float | None:
    return None if value.isnan() else float(value)
