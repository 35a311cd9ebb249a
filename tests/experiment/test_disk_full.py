"""A disk that is full is told in one line."""

import resource
import subprocess
import sys

import pytest
from run_cli import FEW, TINY


@pytest.mark.slow
def test_a_full_disk_is_one_line(tmp_path):
    words = ["train", "smoke_text", FEW, TINY, "training.max_steps=4", "training.save_steps=2", "training.use_cpu=true"]
    done = subprocess.run(
        [sys.executable, "-m", "latentlm", *words, f"training.output_dir={tmp_path / 'run'}"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)),
        capture_output=True, text=True, timeout=3600,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("latentlm: ")
    assert "could not be written" in last
    assert "Traceback" not in done.stderr
