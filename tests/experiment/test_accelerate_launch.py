"""The ready-made launch configurations: accelerate reads each, and two processes give the run of one."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from paths import ROOT, TESTS
from run_cli import FEW, TINY, latentlm
from safetensors.torch import load_file

from latentlm.config.catalog import accelerate_configs

ENGINES = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}


def test_every_configuration_has_its_engine():
    assert accelerate_configs().keys() == ENGINES.keys()


@pytest.mark.parametrize("name", ENGINES)
def test_accelerate_reads_it(name):
    told = latentlm("accelerate-config", name)
    assert told.code == 0
    config = load_config_from_file(told.out.strip())
    assert config.distributed_type == ENGINES[name]
    words = ["--config_file", told.out.strip(), "-m", "latentlm", "train", "smoke_text"]
    args = _validate_launch_command(launch_command_parser().parse_args(words))[0]
    assert args.num_processes == 2
    assert (args.multi_gpu, args.use_fsdp, args.use_deepspeed) == (name == "ddp", name == "fsdp2", "zero" in name)
    if name == "fsdp2":
        assert int(args.fsdp_version) == 2
    if "zero" in name:
        assert args.zero_stage == int(name[-1])
        assert bool(args.zero3_save_16bit_model) == (name == "zero3")


def test_an_unknown_name_is_one_line():
    told = latentlm("accelerate-config", "fsdp3")
    assert told.code == 2
    assert told.err.startswith("latentlm: accelerate-config 'fsdp3': no such configuration")
    assert "fsdp2" in told.err


COMMON = [
    FEW,
    TINY,
    "training.max_steps=6",
    "training.logging_steps=1",
    "training.save_steps=3",
    "training.use_cpu=true",
]


def readme_line(name):
    """The words of the launch line of a configuration, as its page says it."""
    text = (ROOT / "recipes/accelerate/README.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^accelerate launch .*accelerate-config {name}\).*$", text, re.MULTILINE)
    line = line.partition("  #")[0].replace(f'"$(latentlm accelerate-config {name})"', str(accelerate_configs()[name]))
    return shlex.split(line)[1:]


def launch(name, *words):
    """Start it; accelerate shards on GPUs only, so FSDP runs with a module that tells it otherwise."""
    line = readme_line(name)
    program = "fsdp_on_cpu" if name == "fsdp2" else "latentlm"
    line[line.index("latentlm")] = program
    line[line.index("launch") : line.index("launch") + 1] = ["--main_process_port", "0"]
    paths = [str(TESTS / "support"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "accelerate.commands.launch", *line, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_launch_that_starts_one_process_says_so(tmp_path, monkeypatch):
    """`accelerate launch --cpu --num_processes 2` with a configuration for GPUs is one process with this variable."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    told = latentlm("train", "smoke_text", *COMMON, "training.max_steps=1", f"training.output_dir={tmp_path / 'run'}")
    assert told.code == 0, told.err
    assert (
        "on 1 process (`accelerate launch --cpu` starts one; for more, set training.use_cpu=true instead)" in told.err
    )
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
def test_two_processes_train_like_one_and_go_on_from_a_checkpoint(name, tmp_path):
    if "zero" in name:  # on a CPU its first launch compiles for five minutes
        pytest.importorskip("deepspeed", reason="needs deepspeed and ninja: pip install deepspeed ninja")
    recipe = readme_line(name)[-1]
    one, two, broken = (tmp_path / folder for folder in ("one", "two", "broken"))
    launch(name, *COMMON, "training.per_device_train_batch_size=4", f"training.output_dir={two}")
    told = latentlm("train", recipe, *COMMON, "training.per_device_train_batch_size=8", f"training.output_dir={one}")
    assert told.code == 0, told.err
    assert [row["loss"] for row in lines(two)] == pytest.approx([row["loss"] for row in lines(one)], rel=1e-4)
    weights, others = (load_file(folder / "model" / "model.safetensors") for folder in (one, two))
    assert others.keys() - weights.keys() <= {"lm_head.weight"}  # tied: gathered twice
    if name == "zero3":  # DeepSpeed gathers parameters and buffers alone; its own checkpoints have the step
        weights.pop("latent._extra_state")
    assert any("teachers" in key for key in weights) == (recipe == "smoke_text")
    for key, value in weights.items():
        torch.testing.assert_close(others[key], value, rtol=1e-3, atol=1e-5, msg=key)
    # what a crash after the checkpoint of step 3 leaves behind
    shutil.copytree(two, broken)
    for path in (broken / "model", broken / "checkpoints" / "checkpoint-6"):
        shutil.rmtree(path)
    (broken / "depth.json").unlink()
    launch(
        name,
        *COMMON,
        "training.per_device_train_batch_size=4",
        f"training.output_dir={broken}",
        "training.resume_from_checkpoint=true",
    )
    same = {"rel": 1e-5} if name == "fsdp2" else {"rel": 0, "abs": 0}
    for row, other in zip(lines(two), lines(broken), strict=True):
        assert row.keys() == other.keys()
        assert {k: v for k, v in other.items() if not isinstance(v, str)} == pytest.approx(
            {k: v for k, v in row.items() if not isinstance(v, str)}, **same
        )
    weights = load_file(broken / "model" / "model.safetensors")
    for key, value in others.items():
        torch.testing.assert_close(weights[key], value, rtol=same["rel"], atol=1e-6 if name == "fsdp2" else 0, msg=key)
