"""Checkpoints of several families as encoders: towers, MAE's encoder, images that are cut up or read as clips."""

import numpy as np
import pytest
import torch
import transformers as tf
from latentlm_evals.models.image_encoder import load_image_encoder

SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 4}
PLAIN = SIZES | {"intermediate_size": 64, "image_size": 16}
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
CLIP = {"text_config": TEXT, "vision_config": PLAIN}
VJEPA = SIZES | {"crop_size": 16, "frames_per_clip": 2, "mlp_ratio": 2, "pred_hidden_size": 24,
                 "pred_num_attention_heads": 4, "pred_num_hidden_layers": 1}  # fmt: skip
FAMILIES = {
    "CLIP": ("CLIPModel", CLIP, "cls"),
    "MAE": ("ViTMAEModel", PLAIN, "cls"),
    "V-JEPA2": ("VJEPA2Model", VJEPA, "mean"),
    "SigLIP2": ("Siglip2VisionModel", SIZES | {"intermediate_size": 64, "num_patches": 16}, "patches"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_states_of_every_depth(family, tmp_path):
    name, sizes, at = FAMILIES[family]
    torch.manual_seed(0)
    getattr(tf, name)(getattr(tf, name.replace("Model", "Config"))(**sizes)).save_pretrained(tmp_path)
    encoder = load_image_encoder("it", str(tmp_path), torch.device("cpu"), None)
    images = list(np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8))
    states = encoder.states(images, at=at)
    assert states.shape == ((3, 3, 16, 48) if at == "patches" else (3, 3, 48))
    torch.testing.assert_close(encoder.states(images, at=at, batch_size=1), states)
