"""From a run or checkpoint to the scores of every section and depth, each beside its nulls."""

import dataclasses

from latentlm.components.tap import resolve_depth
from latentlm.config.schema import dump
from latentlm.experiment.recipe import load_recipe
from latentlm.result import Result, Task, TaskKey, estimates
from latentlm_evals.coherence.options import Options
from latentlm_evals.coherence.runner import measure
from latentlm_evals.coherence.stimuli import CONTEXTS
from latentlm_evals.models.interventions import Lens
from latentlm_evals.models.run_dir import is_run, write_result

VERSION = 3  # of the scores: raise it when the same model would get other numbers
DEFAULTS = Options()
NAME = "coherence"
LOWER = ("fracture", "num_readouts", "leak", "gap", "law_error")  # lower is better
BOUNDS = ("_stderr", "_low", "_high")
NULLS = ("_shuffled", "_chance", "_null", "_sd", "_control", "explained", *BOUNDS)


def run(name: str, options: Options = DEFAULTS) -> Result:
    """Score a run folder, or any checkpoint or adapter of a causal language model, and write the result."""
    lens = Lens.load(name, options.device, options.batch_size)
    depths = sorted({int(resolve_depth(depth, lens.backbone.num_layers)) for depth in options.depths})
    data = load_recipe(f"{name}/recipe.yaml").source if is_run(name) else None
    found = measure(lens, depths, options, data)
    if not found.scores:
        raise ValueError(f"{name}: nothing of what was asked for can be measured: {'; '.join(found.notes)}")
    if options.random_init:
        fresh = lens.random_init(options.seed)
        twin = measure(fresh, depths, dataclasses.replace(options, base=None), data).scores
        for task, row in found.scores.items():
            row |= {f"{key}_random": value for key, value in twin.get(task, {}).items() if _has_null(key)}
    tasks = {
        TaskKey.parse(f"{NAME}/{task}"): Task(
            estimates(row, {key: key not in LOWER for key in row}), task, dict(found.samples[task]), VERSION
        )
        for task, row in found.scores.items()
    }
    result = Result.measured(
        tasks,
        {
            "model": type(lens.model).__name__,
            "model_path": name,
            "depths": depths,
            "num_layers": lens.backbone.num_layers,
            "options": dump(options),
        },
        found.notes,
        transfer=found.transfer,
        contexts=[context.name for context in CONTEXTS],
    )
    write_result(result, NAME, name, options.out)
    return result


def _has_null(key: str) -> bool:
    return not key.endswith(NULLS)
