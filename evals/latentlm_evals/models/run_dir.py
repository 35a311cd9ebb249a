"""What an evaluation is given: a run folder or a checkpoint; and where its result goes."""

import json
from pathlib import Path


def weights_of(run: str) -> str:
    """Where the weights of a run lie: ``model/`` of a run folder; a checkpoint's folder or hub name is its own."""
    if not is_run(run):
        return run
    if not (Path(run) / "model").is_dir():
        raise ValueError(f"{run}: has no model/ to score: let the training finish first")
    return str(Path(run) / "model")


def is_run(run: str) -> bool:
    """Whether it is a folder that `latentlm train` has written."""
    return (Path(run) / "recipe.yaml").is_file()


def write_result(result: dict, evaluation: str, run: str, out: str | None) -> Path | None:
    """Write `out`; without it ``eval/<evaluation>.json`` in a run folder, and nothing for a checkpoint; its path."""
    if out is None and not is_run(run):
        return None
    target = Path(out) if out is not None else Path(run) / "eval" / f"{evaluation}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return target
