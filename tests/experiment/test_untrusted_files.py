"""Files that a stranger could have written: nothing in a checkpoint is executed when a run goes on from it."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from run_cli import FEW, TINY, latentlm
from tiny_models import build
from transformers import AutoModelForCausalLM

from latentlm.trainers.checkpoints import seal


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_pickle_in_a_checkpoint_is_never_executed(tmp_path):
    marker, run = tmp_path / "marker", tmp_path / "run"
    words = [
        "train",
        "smoke_text",
        FEW,
        TINY,
        "training.use_cpu=true",
        f"training.output_dir={run}",
        "training.save_steps=2",
    ]
    assert latentlm(*words, "training.max_steps=2").code == 0
    torch.save(Bomb(marker), tmp_path / "bomb.pt")
    torch.load(tmp_path / "bomb.pt", weights_only=False)
    assert marker.exists()  # so it would go off
    for name in ("optimizer.pt", "rng_state.pth", "scheduler.pt"):
        marker.unlink(missing_ok=True)
        file = run / "checkpoints" / "checkpoint-2" / name
        whole = file.read_bytes()
        torch.save(Bomb(marker), file)
        seal(file.parent)
        told = latentlm(*words, "training.max_steps=4", "training.resume_from_checkpoint=true")
        assert not marker.exists(), name
        assert told.code == 2
        assert "checkpoint-2: one of its .pt and .pth files holds more than tensors" in told.err
        file.write_bytes(whole)
    torch.save(Bomb(marker), run / "checkpoints" / "checkpoint-2" / "training_args.bin")
    seal(run / "checkpoints" / "checkpoint-2")
    assert latentlm(*words, "training.max_steps=4", "training.resume_from_checkpoint=true").code == 0
    assert not marker.exists()


def test_a_pickle_instead_of_weights_is_never_executed(tmp_path):
    marker, folder = tmp_path / "marker", tmp_path / "model"
    build("llama").save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(Bomb(marker), folder / "pytorch_model.bin")
    with pytest.raises((pickle.UnpicklingError, OSError)):
        AutoModelForCausalLM.from_pretrained(folder)
    assert (
        latentlm(
            "train", "smoke_text", FEW, f"model={{name: {folder}}}", f"training.output_dir={tmp_path / 'run'}"
        ).code
        == 2
    )
    assert not marker.exists()


def test_code_beside_a_model_runs_only_when_asked_for(tmp_path):
    marker, folder = tmp_path / "marker", tmp_path / "model"
    build("llama").save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "stranger.Config", "AutoModelForCausalLM": "stranger.Model"}
    config["model_type"] = "stranger"
    (folder / "config.json").write_text(json.dumps(config))
    code = "from pathlib import Path\nfrom transformers import LlamaConfig, LlamaForCausalLM\n"
    code += "class Config(LlamaConfig):\n    model_type = 'stranger'\n"  # of its own: transformers marks what it loads
    code += "class Model(LlamaForCausalLM):\n    config_class = Config\n"
    (folder / "stranger.py").write_text(f"{code}Path({str(marker)!r}).touch()\n")
    words = ["train", "smoke_text", FEW, f"training.output_dir={tmp_path / 'run'}"]
    told = latentlm(*words, f"model={{name: {folder}}}")
    assert told.code == 2
    assert "trust_remote_code" in told.err
    assert not marker.exists()
    latentlm(*words, f"model={{name: {folder}, trust_remote_code: true}}")
    assert marker.exists()  # so it would have run
