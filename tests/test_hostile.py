"""Files that a stranger could have written: nothing in a checkpoint is executed when a run goes on from it."""

import pickle
from pathlib import Path

import pytest
import torch
from command import FEW, TINY, latentlm


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_pickle_in_a_checkpoint_is_never_executed(tmp_path):
    marker, run = tmp_path / "marker", tmp_path / "run"
    words = ["train", "smoke/text", FEW, TINY, "run.device=cpu", f"run.dir={run}", "run.save_every=2"]
    assert latentlm(*words, "optim.steps=2").code == 0
    torch.save(Bomb(marker), tmp_path / "bomb.pt")
    torch.load(tmp_path / "bomb.pt", weights_only=False)
    assert marker.exists()  # so it would go off
    for name in ("optimizer.pt", "rng_state.pth", "scheduler.pt"):
        marker.unlink(missing_ok=True)
        file = run / "checkpoints" / "checkpoint-2" / name
        whole = file.read_bytes()
        torch.save(Bomb(marker), file)
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            latentlm(*words, "optim.steps=4", "run.resume=true")
        assert not marker.exists(), name
        file.write_bytes(whole)
    torch.save(Bomb(marker), run / "checkpoints" / "checkpoint-2" / "training_args.bin")
    assert latentlm(*words, "optim.steps=4", "run.resume=true").code == 0
    assert not marker.exists()
