"""What lies in a run folder, and what that says about the run."""

from pathlib import Path

from latentlm.whole_files import is_whole_json

RECIPE, FACTS, METRICS, DEPTH, LOCK = "recipe.yaml", "run.json", "metrics.jsonl", "depth.json", "run.lock"


def is_run(folder: Path) -> bool:
    """Whether `latentlm train` has written it: somebody's own recipe.yaml alone makes no run."""
    return (folder / RECIPE).is_file() and (folder / FACTS).is_file()


def is_finished(folder: Path) -> bool:
    """Whether the training went to its end: ``depth.json`` is its last file, and goes when it is given more steps."""
    return is_whole_json(folder / DEPTH) and (folder / "model" / "config.json").is_file()


def unfinished(run: Path | str) -> str:
    """What to tell of a run that has no model of its last step yet."""
    again = f"latentlm train {run} training.resume_from_checkpoint=true"
    return f"{run}: is not finished; finish it with: {again}, or name one of its checkpoints"
