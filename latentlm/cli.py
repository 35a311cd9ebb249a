"""The command line: train | eval | report | export | recipes. Mistakes are one line and exit code 2."""

import os
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Latent-prediction heads on intermediate hidden states beside next-token loss.",
)  # fmt: skip

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.path=value, e.g. optim.learning_rate=1e-4 run.dir=out")
]
Runs = Annotated[list[str], typer.Argument(help="run folders, model folders or hub names")]


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="a built-in recipe's name, a YAML file or a run folder")],
    overrides: Overrides = None,
) -> None:
    """Train a recipe into a run folder."""
    from latentlm.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])  # before the slow imports: a typo should cost nothing
    from latentlm.train import train as run

    folder = run(loaded, Path(recipe).stem)
    typer.echo(f"{folder}")


@app.command(name="eval")
def evaluate(
    name: Annotated[str, typer.Argument(help="which evaluation, e.g. reversal")],
    runs: Runs,
    data: Annotated[str | None, typer.Option(help="recipe whose data is tested; default: the run's own")] = None,
    out: Annotated[str | None, typer.Option(help="result file; default: eval/NAME.json in the run folder")] = None,
) -> None:
    """Evaluate runs or any Hugging Face checkpoint; prints a table and writes JSON."""
    from latentlm.config import ConfigError, suggest

    evals = {entry.name: entry for entry in entry_points(group="latentlm.evals")}
    if name not in evals:
        raise ConfigError(f"eval '{name}': no such evaluation{suggest(name, list(evals))}")
    if out is not None and len(runs) > 1:
        raise ConfigError("--out: names one file, but there are several runs; leave it out")
    for run in runs:
        if ("/" not in run or Path(run).is_absolute()) and not Path(run).exists():
            raise ConfigError(f"{run}: no such run folder")
    from rich.console import Console

    suite = evals[name].load()
    results = {run: suite.run(run, data=data, out=out) for run in runs}
    Console().print(suite.table(results))


@app.command()
def report(
    runs: Runs,
    out: Annotated[str | None, typer.Option(help="page; default: report.html in the first run folder")] = None,
) -> None:
    """Write one HTML page (and PNGs) about one run or several side by side."""
    from latentlm.report import write_report

    page = write_report([Path(run) for run in runs], Path(out) if out else Path(runs[0]) / "report.html")
    typer.echo(f"{page}")


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="run folder, or a model folder saved with heads")],
    out: Annotated[str, typer.Argument(help="new folder")],
) -> None:
    """Write a plain Hugging Face model without heads; AutoModelForCausalLM loads it without latentlm."""
    from latentlm.export import export as write

    write(Path(run), Path(out))
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
        app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort) as stop:
        sys.exit(_say(str(stop) or "stopped", 130))
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


if __name__ == "__main__":
    main()
