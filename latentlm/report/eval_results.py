"""Result files in lm-eval's shape: read, told apart by their model, and put together."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

TABLES = ("results", "versions", "n-samples", "higher_is_better", "transfer")
MERGED = "merged_from"  # marks what a report has put together, so that no folder's result is read twice

Result = dict[str, Any]


class Source(NamedTuple):
    """What becomes one run: a name for it, the path that was given, and its result files."""

    name: Path
    path: Path
    files: dict[Path, Result]


def sources(paths: Sequence[Path]) -> list[Source]:
    """One for each path, but one for all files that hold different evaluations of the same model."""
    found = [Source(path, path, _files(path)) for path in paths]
    alike: dict[str, list[Source]] = {}
    for source in found:
        if source.path.suffix == ".json" and (model := model_of(source.files[source.path])) is not None:
            alike.setdefault(model, []).append(source)
    for model, parts in alike.items():
        evaluations = [_evaluations(part.files[part.path]) for part in parts]
        # with two results of one evaluation nobody can say which the others belong to
        if len(parts) > 1 and sum(map(len, evaluations)) == len(set().union(*evaluations)):
            whole = Source(
                Path(model), parts[0].path, {path: file for part in parts for path, file in part.files.items()}
            )
            found[found.index(parts[0])] = whole
            found = [source for source in found if source not in parts[1:]]
    return found


def model_of(result: Result) -> str | None:
    """The model or run folder that a result names; None where the name says nothing outside of the folder it was in."""
    config = result.get("config") or {}
    # of other results `model` is the name of a class
    name = config.get("model_path") or (config.get("model") if _evaluations(result) == {"probe"} else None)
    if not isinstance(name, str):
        return None
    path = Path(name)
    path = path.parent if path.name == "model" else path  # the weights of a run folder are the run's
    return None if path.name in ("", "..") else str(path)


def merge(files: Mapping[Path, Result]) -> Result:
    """All results as one, each task with the configuration that it was scored with."""
    whole: Result = {name: {} for name in (*TABLES, "configs")}
    warnings: dict[str, None] = {}
    for result in files.values():
        for name in TABLES:
            whole[name] |= result.get(name) or {}
        whole["configs"] |= result.get("configs") or dict.fromkeys(result["results"], result.get("config") or {})
        warnings |= dict.fromkeys(map(str, result.get("warnings") or []))
        if result.get("contexts"):
            whole["contexts"] = result["contexts"]
    return whole | {"warnings": list(warnings), MERGED: [str(path) for path in files]}


def write_merged(target: Path, results: Mapping[str, Result]) -> None:
    """One run's results themselves; of several runs, those of each under its label in ``runs``."""
    found = {label: result for label, result in results.items() if result[MERGED]}
    if not found:
        return
    whole = found[next(iter(found))]
    if len(results) > 1:
        whole = {"runs": found, MERGED: [path for result in found.values() for path in result[MERGED]]}
    target.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def check_free(target: Path) -> None:
    """ValueError if a file lies there that no report has written."""
    if target.is_file() and not is_merged(read_json(target)):
        raise ValueError(f"{target}: the page's scores would overwrite it: give the page another name")


def is_merged(result: Any) -> bool:
    """Whether a report has put it together."""
    return isinstance(result, dict) and MERGED in result


def read_json(path: Path) -> Any:
    """What a file holds; None if there is none."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"{path}: is not JSON ({error}): make it again") from None


def _files(path: Path) -> dict[Path, Result]:
    fix = "name a result file that `latentlm eval ... --out FILE` has written"
    if path.suffix == ".json":
        if not path.is_file():
            raise ValueError(f"{path}: no such file: {fix}")
        return {path: _checked(path, read_json(path), fix)}
    found = {file: read_json(file) for file in sorted((path / "eval").glob("*.json"))}
    fix = "make it again, or move it out of eval/"
    return {file: _checked(file, result, fix) for file, result in found.items() if not is_merged(result)}


def _checked(path: Path, result: Any, fix: str) -> Result:
    rows = result.get("results") if isinstance(result, dict) else None
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise ValueError(f'{path}: is no result, it has no "results" of tasks: {fix}')
    return result


def _evaluations(result: Result) -> set[str]:
    return {task.partition("/")[0] for task in result["results"]}
