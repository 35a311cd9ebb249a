"""Result files: read, told apart by their model, and put together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from latentlm.result import Result
from latentlm.whole_files import read_json, write_json

MERGED = "merged_from"  # marks what a report has put together, so that no folder's result is read twice


class Source(NamedTuple):
    """What becomes one run: a name for it, the path that was given, and its results by file."""

    name: Path
    path: Path
    files: dict[Path, Result]


def sources(paths: Sequence[Path]) -> list[Source]:
    """One for each path, but one for all files that hold different evaluations of the same model."""
    found = [Source(path, path, _files(path)) for path in paths]
    by_model: dict[str, list[Source]] = {}
    for source in found:
        if source.path.suffix == ".json" and (model := source.files[source.path].model) is not None:
            by_model.setdefault(model, []).append(source)
    for model, parts in by_model.items():
        evaluations = [part.files[part.path].evaluations for part in parts]
        # with two results of one evaluation nobody can say which the others belong to
        if len(parts) > 1 and sum(map(len, evaluations)) == len(set().union(*evaluations)):
            files = {path: result for part in parts for path, result in part.files.items()}
            found[found.index(parts[0])] = Source(Path(model), parts[0].path, files)
            found = [source for source in found if source not in parts[1:]]
    return found


def write_merged(target: Path, results: Mapping[str, tuple[Result, Sequence[Path]]]) -> None:
    """One run's results themselves; of several runs, those of each under its label in ``runs``.

    Args:
        target: the file.
        results: by label, with the files that they are from.
    """
    found = {
        label: result.to_lm_eval() | {MERGED: list(map(str, files))}
        for label, (result, files) in results.items()
        if files
    }
    if not found:
        return
    whole: dict[str, Any] = found[next(iter(found))]
    if len(results) > 1:
        whole = {"runs": found, MERGED: [path for result in found.values() for path in result[MERGED]]}
    write_json(target, whole)


def check_free(target: Path) -> None:
    """ValueError if a file is there that no report has written."""
    if target.is_file() and not _is_merged(read_json(target)):
        raise ValueError(f"{target}: the page's scores would overwrite it: give the page another name")


def check_page(page: Path) -> None:
    """ValueError if a file is there that is not the page of a report."""
    if page.exists() and "<title>latentlm: " not in page.read_text(encoding="utf-8", errors="replace")[:400]:
        raise ValueError(f"{page}: exists and is not a page of latentlm report: give the page another name")


def _is_merged(data: Any) -> bool:
    """Whether a report has put it together."""
    return isinstance(data, dict) and MERGED in data


def _files(path: Path) -> dict[Path, Result]:
    if path.suffix == ".json":
        fix = "name a result file that `latentlm eval ... out=FILE` has written"
        if not path.is_file():
            raise ValueError(f"{path}: no such file: {fix}")
        return {path: _read(read_json(path), path, fix)}
    found = {file: read_json(file) for file in sorted((path / "eval").glob("*.json"))}
    fix = "make it again, or move it out of eval/"
    return {file: _read(data, file, fix) for file, data in found.items() if not _is_merged(data)}


def _read(data: Any, path: Path, fix: str) -> Result:
    try:
        result = Result.from_lm_eval(data, str(path))
    except ValueError as error:
        raise ValueError(f"{error}: {fix}") from None
    result.extra.pop(MERGED, None)
    return result
