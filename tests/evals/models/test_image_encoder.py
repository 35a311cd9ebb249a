"""States of ViTs are the network's own: class token, patches and registers kept apart."""

import numpy as np
import pytest
import torch
from latentlm_evals.models.image_encoder import ImageEncoder
from latentlm_evals.models.text_encoder import load_encoder
from transformers import AutoConfig, AutoModel, ViTImageProcessor

SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
PIXELS = {"image_size": 16, "patch_size": 4, "num_channels": 3}
VITS = {"vit": 1, "dinov2": 1, "dinov2_with_registers": 5, "dinov3_vit": 5, "ijepa": 0, "deit": 2}


def random(kind, **more):
    torch.manual_seed(0)
    return AutoModel.from_config(AutoConfig.for_model(kind, **SIZE | PIXELS | more)).eval()


def pictures(count=3, seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8))


def sight():
    return ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.25] * 3)


@pytest.mark.parametrize("kind", VITS)
def test_states_of_images(kind, unchecked_types):
    model = random(kind, **({"num_register_tokens": 4} if "regist" in kind or "v3" in kind else {}))
    encoder, images = ImageEncoder("tiny", model, sight()), pictures()
    assert encoder.kind == "image"
    inputs = sight()(images=images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        seen = torch.stack(model(pixel_values=inputs, output_hidden_states=True).hidden_states, 1)
    patches = encoder.states(images, "patches", batch_size=2)
    assert seen.shape[2] == VITS[kind] + 16
    torch.testing.assert_close(patches[:, :3], seen[:, :3, VITS[kind] :])
    torch.testing.assert_close(encoder.states(images, "mean"), patches.mean(2))
    if VITS[kind]:
        torch.testing.assert_close(encoder.states(images, "cls", depths=[2, 0]), seen[:, [2, 0], 0])
        halves = [encoder.states(images, at) for at in ("cls", "mean")]
        torch.testing.assert_close(encoder.states(images, "both"), torch.cat(halves, -1))
    else:
        with pytest.raises(ValueError, match="no class token"):
            encoder.states(images, "cls")
    with pytest.raises(ValueError, match="for texts"):
        encoder.states(images, "last")
    with pytest.raises(ValueError, match="uint8"):
        encoder.states([images[0].astype(np.float32)], "mean")


def test_one_channel_folders_cache_and_twin(tmp_path):
    random("vit", num_channels=1).save_pretrained(tmp_path / "vit")
    encoder = load_encoder(str(tmp_path / "vit"), "cpu").cached(tmp_path / "states")
    images = [image[..., 0] for image in pictures()]
    first = encoder.states(images, "cls")
    assert first.shape == (3, 4, 32)
    forward, encoder.model.forward = encoder.model.forward, None
    torch.testing.assert_close(encoder.states(images, "cls"), first)
    encoder.model.forward = forward
    assert not torch.allclose(encoder.random_init(1).states(images, "cls"), first)
    assert len(list((tmp_path / "states").iterdir())) == 2
    with torch.no_grad():
        encoder.model.layers[1].mlp.fc1.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="depth 2 of image 0 are not finite"):
        ImageEncoder("tiny", encoder.model, encoder.processor).states(images)
