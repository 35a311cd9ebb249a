"""The command line in this process: what it prints and returns."""

import io
import logging
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

from latentlm.cli import main

TINY = (
    "model.config={model_type: llama, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, "
    "num_attention_heads: 2, max_position_embeddings: 64, tie_word_embeddings: true}"
)
FEW = (
    "data.source={kind: facts, num_a_to_b: 4, num_b_to_a: 4, num_both: 8, templates_per_fact: 2, "
    "questions_per_split: 4}"
)


class Told(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def latentlm(*words: str) -> Told:
    """Run `latentlm WORDS`; levels of loggers, warnings and arguments are put back."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    before = sys.argv
    names = ("transformers.trainer", "transformers.trainer_utils", "huggingface_hub.utils._http", "datasets")
    levels = [logging.getLogger(name).level for name in names]
    sys.argv = ["latentlm", *words]
    try:
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = before
        for name, level in zip(names, levels, strict=True):
            logging.getLogger(name).setLevel(level)
    return Told(code, out.getvalue(), err.getvalue())
