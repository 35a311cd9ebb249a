"""The command line, one function a command. Mistakes are one line and exit code 2."""

import inspect
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Latent-prediction heads on intermediate hidden states beside next-token loss.",
)  # fmt: skip

# what is not installed with latentlm alone, and the extra that brings it
OPTIONAL = {
    "sklearn": "evals", "lm_eval": "evals", "matplotlib": "report", "jinja2": "report", "PIL": "vision", "trl": "trl"
}  # fmt: skip

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.path=value, e.g. training.learning_rate=1e-4 training.output_dir=out")
]


class Stopped(Exception):  # noqa: N818 - not an error
    """Ctrl-C, with what to do next."""


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="a method or experiment, a YAML file or a run folder")],
    overrides: Overrides = None,
) -> None:
    """Train a recipe into a run folder.

    The folder is training.output_dir, by default runs/RECIPE. Ctrl-C saves a checkpoint, and
    training.resume_from_checkpoint=true continues from it.
    """
    from latentlm.config.compose import compose

    plain = compose(recipe, overrides or [])  # a wrong name costs no slow import
    from latentlm.experiment.recipe import build_recipe
    from latentlm.experiment.run_dir import check_folder
    from latentlm.experiment.run_lock import check_free

    loaded = build_recipe(plain, recipe, overrides or [])
    check_free(check_folder(loaded))  # before the slow imports: a mistake should cost nothing
    _quiet(data=True)
    from latentlm.experiment.train import train as run

    try:
        typer.echo(f"{run(loaded)}")
    except KeyboardInterrupt as stop:  # typer would swallow how to go on
        raise Stopped(*stop.args) from None


@app.command(name="eval", add_help_option=False, context_settings={"ignore_unknown_options": True})
def evaluate(
    name: Annotated[str, typer.Argument(help="which evaluation, e.g. reversal")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="RUN... [KEY=VALUE]...", help="runs, checkpoints, and its options")
    ] = None,
) -> None:
    """Evaluate runs or other checkpoints.

    A run is a run folder, a model or adapter folder, or a hub name. The result goes to eval/NAME.json in a run folder,
    or to out=FILE. `latentlm eval NAME --help` lists the options of an evaluation.
    """
    from latentlm.config.command_line import describe_options, parse_options, split_words
    from latentlm.config.schema import ConfigError, suggest
    from latentlm.report.contract import evaluation_names, load_evaluation

    known = evaluation_names()
    if name == "--help":
        about = inspect.cleandoc(evaluate.__doc__ or "")
        typer.echo(f"Usage: latentlm eval NAME RUN... [KEY=VALUE]...\n\n{about}\n")
        typer.echo(f"NAME is one of: {', '.join(known)}")
        return
    if name not in known:
        raise ConfigError(f"eval '{name}': no such evaluation{suggest(name, known)}")
    runs, pairs = split_words(words or [])
    if ("help", None) in pairs:
        evaluation = load_evaluation(name)
        typer.echo(f"Usage: latentlm eval {name} RUN... [KEY=VALUE]...\n\n{evaluation.about}\n")
        typer.echo(describe_options(evaluation.options))
        return
    if not runs:
        raise ConfigError(f"eval {name}: name at least one run folder, model folder or hub name")
    for key, value in pairs:
        if key in ("out", "samples"):
            _check_file(key, value, len(runs))
    for run in runs:
        _check_run(run)
    evaluation = load_evaluation(name)
    options = parse_options(evaluation.options, pairs)
    _quiet()
    results = {run: evaluation.run(run, options) for run in runs}
    for view in evaluation.table(results):
        _show(view)


@app.command()
def report(
    runs: Annotated[
        list[str], typer.Argument(help="run folders, other folders with results in eval/, or result files")
    ],
    out: Annotated[str | None, typer.Option(help="page; default: report.html in, or beside, the first one")] = None,
) -> None:
    """Write an HTML page about one run or several.

    Several runs stand side by side; result files about one model are one run. The pictures lie beside the page, and all
    scores as JSON in lm-eval's shape.
    """
    from latentlm.config.schema import ConfigError
    from latentlm.report import write_report

    first = Path(runs[0])
    if first.suffix == ".json":  # eval/ is for results alone
        first = first.parents[1] if first.parent.name == "eval" else first.parent
    target = Path(out) if out else first / "report.html"
    page = target if target.suffix == ".html" else target / "report.html"
    if not _is_own(page, "<title>latentlm"):
        raise ConfigError(f"report: {page} was not written by latentlm report; name another page with --out")
    page = write_report([Path(run) for run in runs], page)
    typer.echo(f"{page}")


@app.command()
def doctor(
    runs: Annotated[list[str], typer.Argument(help="run folders, finished or not")],
) -> None:
    """Say what is healthy in a run and what is not.

    Reads the logs of a run while it goes or afterwards: collapse, rank, heads and terms that do nothing, what diverged.
    Exit code 0: healthy, 1: not.
    """
    from latentlm.report.doctor import LEGEND, describe, examine, read_run, table

    ill = False
    for run in [read_run(Path(run)) for run in runs]:
        findings = examine(run)
        ill |= bool(findings)
        typer.echo("\n".join(describe(run, findings)))
        _show(table(run, findings))
    typer.echo(LEGEND)
    raise typer.Exit(int(ill))


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="run folder, or a model or adapter folder saved with heads")],
    out: Annotated[str, typer.Argument(help="new folder")],
    merge: Annotated[bool, typer.Option("--merge", help="merge a trained adapter into its base, in float32")] = False,
    dtype: Annotated[str | None, typer.Option(help="of the weights: float32, bfloat16 or float16")] = None,
) -> None:
    """Write a plain Hugging Face folder without heads.

    A model or a PEFT adapter, with a model card; it loads without latentlm. A merged adapter is written in float32,
    because bfloat16 would round most of a small update away; --dtype bfloat16 halves the folder at that price.
    """
    from latentlm.config.schema import ConfigError, suggest

    kinds = ("float32", "bfloat16", "float16")
    if dtype is not None and dtype not in kinds:
        raise ConfigError(f"--dtype: no {dtype}{suggest(dtype, kinds)}")
    _quiet()
    import torch

    from latentlm.export.export import export as write

    write(Path(run), Path(out), merge, None if dtype is None else getattr(torch, dtype))
    typer.echo(out)


@app.command(name="export-data")
def export_data(
    recipe: Annotated[str, typer.Argument(help="a method or experiment, a YAML file or a run folder")],
    folder: Annotated[str, typer.Argument(help="new folder")],
    overrides: Overrides = None,
) -> None:
    """Write a recipe's training texts and test questions.

    FOLDER/train.jsonl and FOLDER/test.jsonl, to train or to ask elsewhere. Overrides are those of train, e.g.
    data.source.kind=binding data.source.seed=3.
    """
    from latentlm.config.schema import ConfigError
    from latentlm.experiment.recipe import load_recipe

    if "=" in folder:
        raise ConfigError(f"export-data: {folder} is an override; name the new folder before it")
    loaded = load_recipe(recipe, overrides or [])
    _quiet(data=True)
    from latentlm.export.dataset_files import write_texts

    for path, lines in write_texts(loaded.source, Path(folder)).items():
        typer.echo(f"{path}  {lines}")


@app.command()
def sample(
    model: Annotated[str, typer.Argument(help="folder or hub name of a causal language model, e.g. RUN/model")],
    out: Annotated[str, typer.Argument(metavar="FILE.jsonl", help="new file")],
    rows: Annotated[int, typer.Option(help="how many texts")] = 500,
    tokens: Annotated[int, typer.Option(help="most tokens of a text")] = 128,
    temperature: Annotated[float, typer.Option(help="below 1: likelier texts, more alike")] = 1.0,
    start: Annotated[str, typer.Option(help="words that every text begins with")] = "",
    seed: Annotated[int, typer.Option(help="of the draws")] = 0,
) -> None:
    """Let a model write texts, to be replayed in training.

    They are a part of a mixture, with the term of the method lwf: `latentlm train lwf data.kind=mixture
    data.parts="[{source: facts.jsonl, terms: []}, {source: texts.jsonl, terms: [keep]}]"`.
    """
    _quiet()
    from latentlm.export.model_texts import write_model_texts

    found, short = write_model_texts(model, Path(out), rows, tokens, temperature, start, seed)
    left = f", {short} were too short and left out" if short else ""
    typer.echo(f"{out}  {found} texts{left}")


@app.command()
def recipes() -> None:
    """List the methods, experiments, papers and models."""
    from latentlm.config.catalog import experiment_names, method_names, model_names, paper_names

    groups = {"methods for text": {}, "methods for images": {}}
    for name, path in method_names().items():
        groups["methods for images" if path.parent.name == "vision" else "methods for text"][name] = path
    groups |= {"experiments": experiment_names(), "papers": paper_names(), "models": model_names()}
    own = "latentlm train NAME data.source=FOLDER"
    uses = {"experiments": "latentlm train NAME", "papers": own, "models": "model=NAME"}
    for group, known in groups.items():
        typer.echo(f"{group}: {uses.get(group, 'latentlm train NAME, get_latent_model(model, NAME)')}")
        for name, path in known.items():
            first = path.read_text(encoding="utf-8").splitlines()[0]
            typer.echo(f"  {name:<20} {first.lstrip('# ')}")


@app.command()
def explain(
    key: Annotated[
        str | None, typer.Argument(help="a key, a kind or a recipe; without one the blocks are listed")
    ] = None,
    page: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="write REFERENCE.md and recipe.schema.json into this folder")
    ] = None,
) -> None:
    """Say what a key of a recipe means.

    For a key such as training.learning_rate or objective.terms.*.target: its meaning, default and choices. For a kind
    such as ema, or a recipe such as nitp: its equation and keys.
    """
    from latentlm.experiment.explain import explain as describe
    from latentlm.experiment.explain import write_reference

    if page is None:
        _show(describe(key))
        return
    for path in write_reference(Path(page)):
        typer.echo(f"{path}")


@app.command(name="accelerate-config")
def accelerate_config(
    name: Annotated[str, typer.Argument(help="ddp, fsdp2, zero2 or zero3")],
) -> None:
    """Print the path of an accelerate configuration."""
    from latentlm.config.catalog import accelerate_configs
    from latentlm.config.schema import ConfigError, suggest

    known = accelerate_configs()
    if name not in known:
        raise ConfigError(f"accelerate-config '{name}': no such configuration{suggest(name, list(known))}")
    typer.echo(f"{known[name]}")


@app.command(name="lm-eval-path")
def lm_eval_path() -> None:
    """Print the folder of the lm-eval tasks."""
    from importlib.resources import files

    typer.echo(str(files("latentlm_evals.lm_eval_tasks")))


def main() -> None:
    """One line and exit code 2 for a mistake of the user, 130 for Ctrl-C; LATENTLM_DEBUG=1 shows tracebacks."""
    from latentlm.config.migration import COMMANDS

    try:
        if (command := next(iter(sys.argv[1:]), "")) in COMMANDS:
            sys.exit(_say(f"`latentlm {command}` is now `latentlm {COMMANDS[command]}`", 2))
        code = app(sys.argv[1:] or ["--help"], prog_name="latentlm", standalone_mode=False)
        if code == 130:  # Ctrl-C while nothing was being trained
            raise Stopped
        if code:
            sys.exit(code)
    except Stopped as stop:
        sys.exit(_say(str(stop) or "stopped", 130))
    except BrokenPipeError:  # the reader has seen enough: `latentlm recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if os.environ.get("LATENTLM_DEBUG") or package not in OPTIONAL:
            raise
        sys.exit(_say(f"{package} is not installed; it comes with: pip install 'latentlm[{OPTIONAL[package]}]'", 2))
    except Exception as error:
        # usage errors can format themselves, our own are ValueErrors; anything else is a bug and keeps its traceback
        if hasattr(error, "format_message"):
            sys.exit(_say(error.format_message(), 2))  # type: ignore[attr-defined]
        if os.environ.get("LATENTLM_DEBUG") or not isinstance(error, ValueError | OSError | FloatingPointError):
            raise
        # a training that diverged is no mistake in what was typed
        sys.exit(_say(" ".join(str(error).split()), 1 if isinstance(error, FloatingPointError) else 2))


def _say(line: str, code: int) -> int:
    typer.echo(f"latentlm: {line}", err=True)
    return code


def _show(table: object) -> None:
    from rich.console import Console

    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    # a pipe has no width of its own, and 80 columns would fold the numbers
    console = Console(width=100)
    with console.capture() as text:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in text.get().splitlines()))


def _check_file(key: str, value: str | None, runs: int) -> None:
    """Refuse what an evaluation could only fail to write when all is scored; without a value the options complain."""
    from latentlm.config.schema import ConfigError

    if runs > 1:
        raise ConfigError(f"{key}: names one file, but there are several runs; leave it out")
    if value is None:
        return
    if Path(value).is_dir():
        raise ConfigError(f"{key}: {value} is a folder; name a file in it")
    above = next(folder for folder in Path(value).absolute().parents if folder.exists())
    if not above.is_dir():
        raise ConfigError(f"{key}: {above} is a file; name one in a folder")
    if not _is_own(Path(value), '"results"' if key == "out" else '{"task"'):
        raise ConfigError(f"{key}: {value} was not written by an evaluation; name another file")


def _is_own(file: Path, mark: str) -> bool:
    """Whether a file may be replaced: there is none, it is empty, or it has the mark of what this command writes."""
    if not file.is_file():
        return True
    held = file.read_text(encoding="utf-8", errors="replace")
    return not held or mark in held


def _check_run(run: str) -> None:
    """Refuse what cannot be scored before the slow imports."""
    from latentlm.config.run_files import is_finished, unfinished
    from latentlm.config.schema import ConfigError

    folder = Path(run)
    if not folder.exists():
        if run.count("/") != 1 or run.startswith((".", "/", "~")) or Path(run).parent.exists():
            raise ConfigError(f"{run}: no such run folder")
    elif not any((folder / file).is_file() for file in ("recipe.yaml", "config.json", "adapter_config.json")):
        raise ConfigError(f"{run}: neither a run folder (recipe.yaml) nor a model or adapter folder (config.json)")
    elif (folder / "recipe.yaml").is_file() and not is_finished(folder):
        raise ConfigError(unfinished(run))


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
