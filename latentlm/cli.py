"""The command line: train | eval | report | export | recipes. Mistakes are one line and exit code 2."""

import inspect
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Latent-prediction heads on intermediate hidden states beside next-token loss.",
)  # fmt: skip

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.path=value, e.g. optim.learning_rate=1e-4 run.dir=out")
]
Runs = Annotated[list[str], typer.Argument(help="run folders, model folders or hub names")]


class Stopped(Exception):  # noqa: N818 - not an error
    """Ctrl-C, with what to do next."""


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="a built-in recipe's name, a YAML file or a run folder")],
    overrides: Overrides = None,
) -> None:
    """Train a recipe into a run folder.

    The folder is run.dir, by default runs/RECIPE. Ctrl-C saves a checkpoint; run.resume=true goes on from it.
    """
    from latentlm.config import read_recipe

    read_recipe(recipe)
    from latentlm.folder import check_folder
    from latentlm.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    check_folder(loaded)  # before the slow imports: a mistake should cost nothing
    _quiet(data=True)
    from latentlm.train import train as run

    try:
        typer.echo(f"{run(loaded)}")
    except KeyboardInterrupt as stop:  # typer would swallow how to go on
        raise Stopped(*stop.args) from None


@app.command(
    name="eval",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
def evaluate(
    name: Annotated[str | None, typer.Argument(help="which evaluation, e.g. reversal")] = None,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="RUN... [--option value]...", help="runs, and options of its own")
    ] = None,
) -> None:
    """Evaluate runs or other checkpoints.

    `latentlm eval NAME RUN... [--option value]...` prints a table and writes JSON. `latentlm eval NAME --help` lists
    the options of an evaluation.
    """
    from latentlm.config import ConfigError, parse, suggest

    evals = {entry.name: entry for entry in entry_points(group="latentlm.evals")}
    if name in (None, "--help"):
        typer.echo(f"{inspect.getdoc(evaluate)}\n\nEvaluations: {', '.join(sorted(evals))}")
        return
    if name not in evals:
        raise ConfigError(f"eval '{name}': no such evaluation{suggest(name, list(evals))}")
    runs, given = _options(words or [])
    if "help" in given:
        typer.echo(f"latentlm eval {name} RUN... [--option value]...\n\n{_described(evals[name].load().Options)}")
        return
    if not runs:
        raise ConfigError(f"eval {name}: Missing argument RUN; give run folders, model folders or hub names")
    if "out" in given and len(runs) > 1:
        raise ConfigError("--out: names one file, but there are several runs; leave it out")
    for run in runs:
        _check_run(run)
    suite = evals[name].load()
    options = parse(suite.Options, given, f"eval {name}")
    _quiet()
    from rich.console import Console

    results = {run: suite.run(run, options) for run in runs}
    console = Console()
    # a pipe has no width of its own: 80 columns would tear the table apart
    (console if console.is_terminal else Console(width=100)).print(suite.table(results))


def _options(words: list[str]) -> tuple[list[str], dict]:
    """Runs and options out of ``RUN --key value --flag --key=value``; values are YAML."""
    from latentlm.config import ConfigError, override

    runs, assignments, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            runs.append(word)
            continue
        key, separator, value = word[2:].partition("=")
        if key == "help":
            value = "true"
        elif not separator:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"--{key}: needs a value, such as --{key} 10")
            value = rest.pop(0)
        assignments.append(f"{key.replace('-', '_')}={value}")
    return runs, override({}, assignments)


def _described(options: type) -> str:
    """The options of an evaluation: its own words, and what each is by default."""
    import dataclasses

    defaults = (f"--{field.name.replace('_', '-')} (default: {field.default})" for field in dataclasses.fields(options))
    return inspect.cleandoc(options.__doc__ or "") + "\n\n" + "\n".join(defaults)


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(help="run folders")],
    out: Annotated[str | None, typer.Option(help="page; default: report.html in the first run folder")] = None,
) -> None:
    """Write an HTML page about one run or several.

    Several runs stand side by side. The pictures also lie beside the page as PNG files.
    """
    from latentlm.report import write_report

    page = write_report([Path(run) for run in runs], Path(out) if out else Path(runs[0]) / "report.html")
    typer.echo(f"{page}")


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="run folder, or a model or adapter folder saved with heads")],
    out: Annotated[str, typer.Argument(help="new folder")],
    merge: Annotated[bool, typer.Option("--merge", help="merge a trained adapter into its base")] = False,
) -> None:
    """Write a plain Hugging Face folder without heads.

    A model or a PEFT adapter, with a model card; it loads without latentlm.
    """
    _quiet()
    from latentlm.export import export as write

    write(Path(run), Path(out), merge)
    typer.echo(out)


@app.command()
def recipes() -> None:
    """List the built-in recipes."""
    from latentlm.config import recipe_names

    for name, path in recipe_names().items():
        first = path.read_text(encoding="utf-8").splitlines()[0]
        typer.echo(f"{name:<22} {first.lstrip('# ')}")


def main() -> None:
    """One line and exit code 2 for a mistake of the user, 130 for Ctrl-C; LATENTLM_DEBUG=1 shows tracebacks."""
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="latentlm", standalone_mode=False)
        if code == 130:  # Ctrl-C while nothing was being trained
            raise Stopped
    except Stopped as stop:
        sys.exit(_say(str(stop) or "stopped", 130))
    except BrokenPipeError:  # the reader has seen enough: `latentlm recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        # usage errors can format themselves, our own are ValueErrors; anything else is a bug and keeps its traceback
        if hasattr(error, "format_message"):
            sys.exit(_say(error.format_message(), 2))  # type: ignore[attr-defined]
        if os.environ.get("LATENTLM_DEBUG") or not isinstance(error, ValueError | OSError):
            raise
        sys.exit(_say(" ".join(str(error).split()), 2))


def _say(line: str, code: int) -> int:
    typer.echo(f"latentlm: {line}", err=True)
    return code


def _check_run(run: str) -> None:
    """Refuse what cannot be scored before the slow imports."""
    from latentlm.config import ConfigError

    folder = Path(run)
    if not folder.exists():
        if run.count("/") != 1 or run.startswith((".", "/", "~")) or Path(run).parent.exists():
            raise ConfigError(f"{run}: no such run folder")
    elif (folder / "recipe.yaml").is_file() and not (folder / "model").is_dir():
        raise ConfigError(f"{run}: has no model yet; finish it with: latentlm train {run} run.resume=true")


def _quiet(data: bool = False) -> None:
    """Keep other libraries' bars and log lines out of what a run tells."""
    import logging
    import warnings

    from transformers.utils import logging as bars

    warnings.simplefilter("ignore", FutureWarning)  # told to those who write the libraries
    warnings.showwarning = lambda message, *where, **more: _say(str(message), 0)
    bars.disable_progress_bar()
    # tied weights are no missing keys, checkpoints are ordered by step, and no network is told once
    for name in ("transformers.trainer", "transformers.trainer_utils", "huggingface_hub.utils._http"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if data:
        import datasets

        datasets.logging.set_verbosity(logging.CRITICAL)  # what it logs it also raises
        if not sys.stderr.isatty():
            datasets.disable_progress_bars()


if __name__ == "__main__":
    main()
