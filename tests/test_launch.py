"""The ready-made launch configurations: accelerate reads each, and two processes give the run of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from command import FEW, TINY, latentlm

from latentlm.config import accelerate_configs

ENGINES = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}


def test_every_configuration_has_its_engine():
    assert accelerate_configs().keys() == ENGINES.keys()


@pytest.mark.parametrize("name", ENGINES)
def test_accelerate_reads_it(name):
    told = latentlm("accelerate-config", name)
    assert told.code == 0
    config = load_config_from_file(told.out.strip())
    assert config.distributed_type == ENGINES[name]
    words = ["--config_file", told.out.strip(), "-m", "latentlm", "train", "smoke/text"]
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


@pytest.mark.slow
def test_two_processes_train_the_smoke_recipe(tmp_path):
    config = str(accelerate_configs()["ddp"])
    common = [FEW, TINY, "optim.steps=6", "run.log_every=1", "run.save_every=3", "run.device=cpu"]
    launch = ["-m", "accelerate.commands.launch", "--config_file", config, "-m", "latentlm", "train", "smoke/text"]
    two = [*launch, *common, "batch.size=4", f"run.dir={tmp_path / 'two'}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *two], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one = latentlm("train", "smoke/text", *common, "batch.size=8", f"run.dir={tmp_path / 'one'}")
    assert one.code == 0, one.err
    losses = [
        [json.loads(line)["loss"] for line in Path(tmp_path, name, "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert (tmp_path / "two/checkpoints/checkpoint-6/rng_state_1.pth").exists()
    assert (tmp_path / "two/model/model.safetensors").exists()
