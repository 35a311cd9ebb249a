"""Weights from a folder or a hub name: all of them arrive, or one line says which do not.

transformers draws at random what a folder does not hold and says so in a report that is easily lost among other lines.
Everything in this library that reads weights reads them here, from that report.
"""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from latentlm.config.schema import ConfigError

SHOWN = 3  # names of weights in a line
# the network's own top, which no hidden state depends on: masked language models and ViTs are often saved without one
UNREAD = ("pooler",)


def load_weights(
    auto: Any,
    name: str | Path,
    *,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
    part: bool = False,
    **options: Any,
) -> Any:
    """The model that ``auto.from_pretrained(name)`` gives; refused where a weight is missing or has another shape.

    Args:
        auto: a class of transformers with `from_pretrained`.
        name: folder or hub name.
        dtype: of the weights; transformers would take that of the files, which is slow on a CPU and rounds updates.
        trust_remote_code: run code that comes with the model.
        part: the folder may hold more than the model reads, as that of a causal LM does for its decoder.
        options: for `from_pretrained`.
    """
    with readable(name):
        model, report = auto.from_pretrained(
            str(name), output_loading_info=True, dtype=dtype, trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True, **options,
        )  # fmt: skip
        _check(str(name), model, report, part)
    return model


def load_config(name: str | Path, trust_remote_code: bool = False) -> Any:
    """The config of a folder or hub name; code that comes with it is not run unless that is asked for."""
    from transformers import AutoConfig

    with readable(name):
        return AutoConfig.from_pretrained(str(name), trust_remote_code=trust_remote_code)


def with_adapter(model: Any, folder: str | Path, name: str | Path | None = None) -> Any:
    """The model under the adapter of a folder; PEFT would warn of weights that are missing and leave them random.

    Args:
        model: its base.
        folder: of the adapter.
        name: to call it by.
    """
    from peft import PeftModel

    with readable(name or folder), warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        return PeftModel.from_pretrained(model, str(folder))


@contextmanager
def readable(name: str | Path) -> Iterator[None]:
    """One line that names what cannot be loaded, whatever a library says of it, and none of the libraries' notes.

    A folder from elsewhere can hold anything, and what transformers raises then is of any type.
    """
    try:
        with quiet_loading():
            yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "trust_remote_code" in reason:
            told = "comes with its own code, which was not run; read it, then allow it in training with"
            raise ConfigError(f"{name}: {told} model.trust_remote_code=true") from error
        if isinstance(error, ConfigError):
            raise
        if _is_cut(error):
            raise ConfigError(
                f"{name}: its weights cannot be read ({reason[:120]}); copy or save them again"
            ) from error
        reason = reason if len(reason) <= 200 else f"{reason[:200]}..."
        raise ConfigError(f"{name}: cannot be loaded ({reason})") from error


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without transformers' report of a load, which lists the heads in a folder as unexpected."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def some(names: Iterable[str]) -> str:
    """The first few names, and how many there are besides."""
    ordered = sorted(names)
    more = len(ordered) - SHOWN
    return ", ".join(ordered[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _check(name: str, model: Any, report: dict[str, Any], part: bool) -> None:
    kind = type(model).__name__
    if wrong := {key: (tuple(have), tuple(want)) for key, have, want in report["mismatched_keys"]}:
        key = min(wrong)
        have, want = (list(shape) for shape in wrong[key])
        raise ConfigError(
            f"{name}: {len(wrong)} of its weights have another shape than config.json says ({key} is {have}, "
            f"not {want}); put back the config or the weights"
        )
    missing = {key for key in report["missing_keys"] if not any(part in key for part in UNREAD)}
    unread = {key for key in report["unexpected_keys"] if ".latent." not in f".{key}"}
    if missing and missing == _output_head(model) & missing:
        raise ConfigError(
            f"{name}: holds no output head ({some(missing)}), and a fresh one would be random; "
            "save it with its next-token head"
        )
    if missing:
        instead = f"; it holds {some(unread)}" if unread else ""
        raise ConfigError(
            f"{name}: lacks {len(missing)} of the weights of {kind} ({some(missing)}), which would be random{instead}; "
            "save it whole"
        )
    if report["error_msgs"]:
        raise ConfigError(f"{name}: cannot be loaded ({' '.join(report['error_msgs'])[:200]})")
    if unread and not part:
        warnings.warn(
            f"{name}: {len(unread)} of its weights are not part of {kind} and not read: {some(unread)}", stacklevel=4
        )


def _output_head(model: Any) -> set[str]:
    """Names of the weights of the output head."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    own = {id(weight) for weight in head.parameters()} if head is not None else set()
    return {key for key, weight in model.named_parameters(remove_duplicate=False) if id(weight) in own}


def _is_cut(error: Exception) -> bool:
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    return isinstance(error, SafetensorError | EOFError | UnpicklingError)
