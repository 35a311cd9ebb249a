"""Every depth by every property: how well it is read off, how cheaply, and what a null reads off."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from latentlm.components.tap import resolve_depth
from latentlm.config.schema import ConfigError, dump
from latentlm.data import Facts
from latentlm.data.images import Images
from latentlm.experiment.recipe import load_recipe
from latentlm.result import Estimate, Result, Task, TaskKey
from latentlm_evals.models.image_encoder import ImageEncoder
from latentlm_evals.models.run_dir import is_run, write_result
from latentlm_evals.models.text_encoder import TextEncoder, load_encoder
from latentlm_evals.probing.folds import folds, unseen, unusable
from latentlm_evals.probing.images import image_factors
from latentlm_evals.probing.options import Options
from latentlm_evals.probing.probe import chosen, linear_hits, probe, rate
from latentlm_evals.probing.properties import Property, attributes, linguistic
from latentlm_evals.probing.task_names import CHOSEN, NAME, task_key
from latentlm_evals.statistics.folds import Fold
from latentlm_evals.statistics.scores import chance_rate

VERSION = 3  # of the scores: raise it when the same model would get other numbers
BETTER = ("acc", "selectivity", "compression")  # of which more is better


@runtime_checkable
class Encoder(Protocol):
    """What is probed: a function from inputs to the states of every depth. `load_encoder` makes one of a checkpoint.

    Attributes:
        kind: ``text``, read at its last token by default, or ``image``, at the mean.
        name: of the network, for the result.
        num_layers: L; depths are 0 (the input of the first block) .. L.
        dim: d.
    """

    kind: Any
    name: str
    num_layers: int
    dim: int

    def states(self, inputs: Any, at: Any, /, *, depths: Any, batch_size: int) -> Tensor:
        """States ``[n depths d]``, float32 on the CPU."""
        ...

    def random_init(self, seed: int, /) -> "Encoder":
        """The same with fresh weights; only asked for with `Options.null`."""
        ...


def run(name: str, options: Options) -> Result:
    """Probe a run folder or any checkpoint, and write the result."""
    source = options.data or (name if is_run(name) else None)
    data = load_recipe(source).source if source is not None else None
    own = attributes(data, options.limit) if isinstance(data, Facts) else []
    if options.data is not None and not (own or isinstance(data, Images)):
        what = (
            "no descriptions of people"
            if isinstance(data, Facts)
            else f"{type(data).__name__}, neither facts nor images"
        )
        raise ConfigError(f"data: {options.data} has {what}: nothing in it can be probed; name another recipe")
    encoder = load_encoder(name, options.device)
    if encoder.kind == "text":
        if isinstance(data, Images):
            raise ConfigError(f"data: {options.data} has images, but {name} reads texts; name a recipe with facts")
        found = linguistic(options.limit, options.seed) + own
    elif isinstance(data, Images):
        reads = encoder if isinstance(encoder, ImageEncoder) else None
        found = image_factors(data.part, options.limit, options.seed, reads)
    else:
        raise ConfigError(f"data: {name} reads images; name a recipe that has some, such as data=mae")
    if options.cache is not None:
        encoder = encoder.cached(options.cache)
    result = evaluate(encoder, found, options)
    write_result(result, NAME, name, options.out)
    return result


def evaluate(encoder: Encoder, properties: Sequence[Property], options: Options) -> Result:
    """A task for each property and depth; ``matrices`` holds accuracy, 0 at chance and 1 where all is right."""
    every = range(encoder.num_layers + 1)
    wanted = every if options.depths is None else {resolve_depth(each, encoder.num_layers) for each in options.depths}
    depths = sorted(map(int, wanted))
    at = options.at or ("last" if encoder.kind == "text" else "mean")
    network, twin = _Reader(encoder, at, depths, options), None
    if options.null:
        twin = _Reader(encoder.random_init(options.seed), at, depths, options)
    tasks: dict[TaskKey, Task] = {}
    matrix: dict[str, list[float]] = {}
    warnings: list[str] = []
    few: dict[str, int] = {}
    started = time.process_time()
    for number, each in enumerate(properties, 1):
        parts = folds(each, options.seed)
        if told := unusable(each, parts):
            warnings.append(told)
            continue
        warnings += [told for told in (unseen(each, parts), _unknown(encoder, each)) if told]
        fitted = min(len(train) for train, _ in parts)
        if fitted <= encoder.dim:
            few[each.name] = fitted
        title = f"probe {each.name} ({number} of {len(properties)})"
        scores = probe(network(each), each, parts, options.seed, lambda parts, title=title: _shown(parts, title))
        hits, least = scores.pop("hits"), chance_rate(each.labels)
        fresh = None
        if twin is not None:
            y = torch.tensor(each.labels)
            (fresh,) = linear_hits(twin(each), [y], each.classes, _shown(parts, f"{title}, fresh weights"))
        entities, train = len(set(each.entities)), min(len(rows) for rows, _ in parts)
        counts = {"original": len(each.inputs), "effective": entities, "train": train}
        for place, depth in enumerate(depths):
            values = {
                key: Estimate(float(value[place]), higher_is_better=True if key in BETTER else None)
                for key, value in scores.items()
            }
            values["acc"] = rate(hits[place], each, higher_is_better=True)
            if fresh is not None:
                values["random_init"] = rate(fresh[place], each)
            alias = f"{each.name}, depth {depth}"
            tasks[task_key(each.name, str(depth))] = Task(values | {"chance": Estimate(least)}, alias, counts, VERSION)
        picked, places = chosen(hits, parts)
        values = {"acc": rate(picked, each, higher_is_better=True), "chance": Estimate(least)}
        values["depth"] = Estimate(float(torch.tensor(depths)[places].median()))
        tasks[task_key(each.name, CHOSEN)] = Task(values, f"{each.name}, {CHOSEN}", counts, VERSION)
        matrix[each.name] = [max(0.0, (float(acc) - least) / (1 - least)) for acc in scores["acc"]]
    if not tasks:
        raise ValueError(f"probe: no property could be probed: {'; '.join(warnings)}")
    if few:
        warnings.append(_few(few, encoder.dim))
    read = network.seconds + (twin.seconds if twin is not None else 0.0)
    rows = [list(row) for row in zip(*matrix.values(), strict=True)]
    return Result.measured(
        tasks,
        {
            "model": encoder.name,
            "model_path": encoder.name,
            "at": at,
            "depths": depths,
            "options": dump(replace(options, cache=None)),
            "cpu_seconds": {"read": round(read, 1), "fit": round(time.process_time() - started - read, 1)},
        },
        warnings,
        matrices={NAME: {"rows": depths, "columns": list(matrix), "values": rows}},
    )


class _Reader:
    """States ``[l n d]`` of a network; inputs that several properties share are read once."""

    def __init__(self, encoder: Encoder, at: str, depths: list[int], options: Options):
        self.encoder, self.at, self.depths, self.batch_size = encoder, at, depths, options.batch_size
        self.inputs: Sequence[Any] | None = None
        self.states, self.seconds = torch.empty(0), 0.0

    def __call__(self, each: Property) -> Tensor:
        if each.inputs is not self.inputs:
            started = time.process_time()
            found = self.encoder.states(each.inputs, self.at, depths=self.depths, batch_size=self.batch_size)
            self.inputs, self.states = each.inputs, found.transpose(0, 1).contiguous()
            self.seconds += time.process_time() - started
        return self.states


def _shown(parts: Sequence[Fold], title: str) -> Any:
    shown = Console(stderr=True)
    return track(parts, title, transient=True, console=shown, disable=not shown.is_terminal)


def _few(few: dict[str, int], dim: int) -> str:
    return (
        f"few_samples: {', '.join(few)}: probes are fitted on {min(few.values())} inputs of {dim} dimensions, where "
        "only the penalty keeps them from fitting anything: trust what lies above labels shuffled, or raise limit"
    )


def _unknown(encoder: Encoder, each: Property) -> str | None:
    """Words that the tokenizer does not know are all read alike, so nothing can be told from them."""
    if not isinstance(encoder, TextEncoder):
        return None
    ids = [token for text in each.inputs[:200] for token in encoder.tokenizer(text)["input_ids"]]
    share = sum(token == encoder.tokenizer.unk_token_id for token in ids) / len(ids)
    return (
        f"{each.name}: {share:.0%} of the tokens are unknown words; its scores mean nothing" if share > 0.05 else None
    )
