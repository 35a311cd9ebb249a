"""Without TRL everything but its trainers works, and those name the extra that brings it."""

import subprocess
import sys

CODE = """
import sys
sys.modules["trl"] = None  # as if it were not installed
import latentlm
from latentlm import LatentTrainer, from_pretrained, get_latent_model
for name in ("LatentSFTTrainer", "LatentDPOTrainer", "LatentGRPOTrainer"):
    try:
        getattr(latentlm, name)
    except ModuleNotFoundError as error:
        print(error)
"""


def test_trainers_of_trl_name_its_extra():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{name}: trl is not installed; it comes with: pip install 'latentlm[trl]'"
        for name in ("LatentSFTTrainer", "LatentDPOTrainer", "LatentGRPOTrainer")
    ]
