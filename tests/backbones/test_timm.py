"""timm's ViTs inside transformers' wrapper: tapped, masked and saved like any other; skipped where timm is missing."""

import pytest
import torch
import torch.nn.functional as F
import yaml
from tiny_vits import PATCHES, images
from transformers import AutoConfig, AutoModel

from latentlm import get_latent_model
from latentlm.attach.api import from_pretrained
from latentlm.attach.state import latent_state
from latentlm.export.export import export

try:
    import timm  # noqa: F401 - it needs torchvision, built for the torch that is here
except (ImportError, RuntimeError) as error:
    pytest.skip(f"timm cannot be imported ({error}); pip install timm", allow_module_level=True)

TERM = "{kind: predict, source: {depth: 1/2, at: visible}, target: %s, predictor: transformer, loss: mse}"
TERMS = f"""
terms:
  pixels: {TERM % "{kind: pixels, at: masked}"}
  slow: {TERM % "{kind: ema, tap: {depth: 1, at: masked}, momentum: 0.5}"}
  top:
    kind: predict
    source: {{depth: 1, norm: final, at: visible}}
    target: {{kind: online, tap: {{depth: 0, at: visible}}}}
    loss: mse
"""


def build(architecture="vit_tiny_patch16_224", seed=0, **special):
    sizes = {"img_size": 16, "patch_size": 4, "in_chans": 2, "embed_dim": 32, "depth": 4, "num_heads": 4}
    torch.manual_seed(seed)
    config = AutoConfig.for_model("timm_wrapper", architecture=architecture, model_args=sizes | special)
    model = AutoModel.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return model


def attach(**special):
    objective = {"lm_weight": 0, "monitor_every": 0, **yaml.safe_load(TERMS)}
    return get_latent_model(build(**special), objective).train()


def watch(model) -> list:
    seen = []
    model.latent.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    return seen


SPECIAL = [{}, {"class_token": False, "global_pool": "avg"}, {"reg_tokens": 3}, {"dynamic_img_size": True}]


@pytest.mark.parametrize("special", SPECIAL, ids=str)
def test_dropping_patches_is_running_the_blocks_on_the_others_alone(special):
    model, batch = attach(**special), images(kept=5)
    batch["latent"]["keep"][0, 3:] = -1
    batch["latent"]["visible"][0, :, 3:] = -1
    seen = watch(model)
    model(**batch).loss.backward()
    plain = build(**special).timm_model
    state = plain._pos_embed(plain.patch_embed(batch["pixel_values"]))
    front = state.shape[1] - PATCHES
    for row, kept in enumerate(batch["latent"]["keep"]):
        kept = kept[kept >= 0]
        alone = torch.cat([state[row : row + 1, :front], state[row : row + 1, front + kept]], 1)
        for depth in range(5):
            if depth:
                alone = plain.blocks[depth - 1](alone)
            if depth in (0, 2, 4):
                found = seen[0].view.states[depth][row]
                first = alone[0, 0] if front else alone[0].mean(0)
                torch.testing.assert_close(found[0], first)
                torch.testing.assert_close(found[1 + kept], alone[0, front:])


def test_mask_tokens_teachers_and_the_final_norm():
    model, batch = attach(), images(kept=4, drop=False)
    seen = watch(model)
    hidden = batch["latent"]["mask"].view(-1, 4, 4).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    other = batch | {"pixel_values": torch.where(hidden, 9.0, batch["pixel_values"])}
    assert model(**batch).loss != model(**other).loss
    torch.testing.assert_close(seen[0].view.states[2], seen[1].view.states[2])  # hidden pixels reach targets alone
    plain = build().timm_model
    _, states = plain.forward_intermediates(batch["pixel_values"], output_fmt="NLC", return_prefix_tokens=True)
    want = torch.cat([states[3][1], states[3][0]], 1)
    torch.testing.assert_close(seen[0].teacher_views["ema"].states[4], want)
    normed = F.layer_norm(want, (32,), plain.norm.weight, plain.norm.bias, 1e-6)
    torch.testing.assert_close(seen[0].view.norm(want), normed)
    assert latent_state(model).backbone.num_layers == 4


def test_saved_loaded_and_exported(tmp_path):
    model, batch = attach(), images(kept=5)
    model(**batch).loss.backward()
    model.eval().save_pretrained(tmp_path / "heads")
    want = model(batch["pixel_values"]).last_hidden_state
    for folder in ("heads", "plain"):
        if folder == "plain":
            export(tmp_path / "heads", tmp_path / "plain")
        plain = AutoModel.from_pretrained(tmp_path / folder).eval()
        assert torch.equal(plain(batch["pixel_values"]).last_hidden_state, want)
    again = from_pretrained(tmp_path / "heads")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_networks_without_a_row_of_blocks_are_one_line():
    for architecture, lacks in [("resnet18", "patch_embed.proj"), ("eva02_tiny_patch14_224", "fixed positions")]:
        config = AutoConfig.for_model("timm_wrapper", architecture=architecture)
        with pytest.raises(ValueError, match=f"has no {lacks}, and only timm's plain ViTs can be tapped; use one such"):
            get_latent_model(AutoModel.from_config(config), {"lm_weight": 0, **yaml.safe_load(TERMS)})
