"""What an evaluation is given: a run folder or a checkpoint; and where its result goes."""

from pathlib import Path

from latentlm.config.run_files import is_finished, unfinished
from latentlm.result import Result


def weights_of(run: str) -> str:
    """Where the weights of a run are: ``model/`` of a run folder; of a checkpoint, its own folder or hub name."""
    if not is_run(run):
        return run
    if not is_finished(Path(run)):
        raise ValueError(unfinished(run))
    return str(Path(run) / "model")


def is_run(run: str) -> bool:
    """Whether it is a folder that `latentlm train` has written."""
    return (Path(run) / "recipe.yaml").is_file()


def write_result(result: Result, evaluation: str, run: str, out: str | None) -> Path | None:
    """Write `out`; without it ``eval/<evaluation>.json`` in a run folder, and nothing for a checkpoint; its path."""
    if out is None and not is_run(run):
        return None
    target = Path(out) if out is not None else Path(run) / "eval" / f"{evaluation}.json"
    result.write(target)
    return target
