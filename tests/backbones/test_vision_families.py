"""Vision networks of other families, tiny and random: what is tapped, what they see of an image, saved and loaded."""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers as tf
import yaml
from checkpointing import recompute

from latentlm import get_latent_model
from latentlm.attach.api import from_pretrained
from latentlm.attach.state import latent_state
from latentlm.backbones import find_backbone
from latentlm.monitor.image_batches import STEPS

SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 16, "patch_size": 4}
STILL = {"drop_path_rate": 0.0}
PLAIN = SIZES | {"intermediate_size": 64}
VJEPA = {"frames_per_clip": 2, "tubelet_size": 2, "crop_size": 16, "mlp_ratio": 2, "pred_hidden_size": 24}
FAMILIES = {
    "DeiT": ("DeiTModel", PLAIN),
    "BEiT": ("BeitModel", PLAIN | {"use_relative_position_bias": True, **STILL}),
    "BEiT_shared": ("BeitModel", PLAIN | STILL | {"use_shared_relative_position_bias": True, "use_mask_token": True}),
    "Data2Vec": ("Data2VecVisionModel", PLAIN | {"use_shared_relative_position_bias": True, **STILL}),
    "I-JEPA": ("IJepaModel", PLAIN),
    "V-JEPA2": ("VJEPA2Model", {k: v for k, v in SIZES.items() if k != "image_size"} | VJEPA
                | {"pred_num_attention_heads": 4, "pred_num_hidden_layers": 1}),
    "CLIP": ("CLIPVisionModel", PLAIN),
    "SigLIP": ("SiglipVisionModel", PLAIN),
    "SigLIP2": ("Siglip2VisionModel", {k: v for k, v in PLAIN.items() if k != "image_size"} | {"num_patches": 16}),
}  # fmt: skip
PATCHES = 16
TERM = "{kind: predict, source: {depth: 2/3, at: visible}, target: %s, predictor: transformer, loss: mse}"
TERMS = f"""
terms:
  pixels: {TERM % "{kind: pixels, at: masked}"}
  slow: {TERM % "{kind: ema, tap: {depth: 2/3, at: masked}, momentum: 0.5}"}
"""


def build(family: str):
    torch.manual_seed(0)
    name, sizes = FAMILIES[family]
    model = getattr(tf, name)(getattr(tf, name.replace("Model", "Config"))(**sizes)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return model


def attach(family: str):
    objective = {"lm_weight": 0, "monitor_every": 0, **yaml.safe_load(TERMS)}
    model = get_latent_model(build(family), objective).train()
    latent_state(model).image_batches = STEPS  # some batches here are odd on purpose
    return model


def batch(kept: tuple[int, ...] = (6, 6), drop: bool = True) -> dict:
    draw = torch.Generator().manual_seed(1)
    order = torch.stack([torch.randperm(PATCHES, generator=draw) for _ in kept])
    keep = torch.full((len(kept), max(kept)), -1)
    for row, num in enumerate(kept):
        keep[row, :num] = order[row, :num].sort().values
    hidden = order[:, max(kept) :]
    latent = {
        "views": torch.arange(1),
        "visible": torch.where(keep >= 0, keep + 1, -1)[:, None],
        "masked": hidden[:, None] + 1,
    }
    latent |= {"keep": keep} if drop else {"mask": torch.zeros(len(kept), PATCHES).scatter(1, hidden, 1).bool()}
    return {"pixel_values": torch.randn(len(kept), 3, 16, 16, generator=draw), "latent": latent}


def watch(model) -> list:
    seen = []
    model.latent.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    return seen


def plain_states(model, pixels) -> torch.Tensor:
    grid = find_backbone(model).grid
    return model(**grid.inputs(pixels, None), output_hidden_states=True).hidden_states[2]


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_the_network_and_its_teacher_sees_the_whole_image(family):
    model, given = attach(family), batch()
    seen = watch(model)
    model(**given).loss.backward()
    want = plain_states(build(family), given["pixel_values"])
    front = want.shape[1] - PATCHES
    found = seen[0].teacher_views["ema"].states[2]
    torch.testing.assert_close(found[:, 1:], want[:, front:])
    torch.testing.assert_close(found[:, 0], want[:, 0] if front else want.mean(1))
    for name, weight in latent_state(model).backbone.layers[0].named_parameters():
        assert weight.grad is not None, name
    del given["latent"]["keep"]
    model(**given)
    torch.testing.assert_close(seen[1].view.states[2], found)


@pytest.mark.parametrize("kept", [(6, 6), (6, 4)], ids=["alike", "padded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_dropping_patches_is_attending_to_the_others_alone(family, kept, monkeypatch):
    if family == "V-JEPA2" and kept == (6, 4):
        with pytest.raises(ValueError, match="keep fewer patches than others, and this network has no attention mask"):
            attach(family)(**batch(kept))
        return
    model, given = attach(family), batch(kept)
    seen = watch(model)
    model(**given)
    keep = given["latent"]["keep"]
    there = torch.zeros(2, PATCHES + 1).scatter(1, torch.where(keep >= 0, keep, PATCHES), 1)[:, :PATCHES]
    attention = F.scaled_dot_product_attention

    def masked(query, key, value, attn_mask=None, **options):
        front = key.shape[2] - PATCHES
        gone = torch.cat([torch.ones(2, front), there], 1) == 0
        bias = torch.zeros(2, 1, 1, key.shape[2]) if attn_mask is None else attn_mask.float()
        bias = torch.where(gone[:, None, None], -torch.inf, bias)
        options = {name: option for name, option in options.items() if name != "is_causal"}
        return attention(query, key, value, attn_mask=bias, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", masked)
    want = plain_states(build(family), given["pixel_values"])
    front = want.shape[1] - PATCHES
    for row, patches in enumerate(keep):
        patches = patches[patches >= 0]
        torch.testing.assert_close(
            seen[0].view.states[2][row][1 + patches], want[row][front + patches], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mask_token_hides_the_patch(family):
    model, given = attach(family), batch(drop=False)
    seen = watch(model)
    model(**given)
    hidden = given["latent"]["mask"].view(-1, 4, 4).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    model(**given | {"pixel_values": torch.where(hidden, 9.0, given["pixel_values"])})
    torch.testing.assert_close(seen[0].view.states[2], seen[1].view.states[2])


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_loaded_it_is_the_same_with_heads_and_plain_without(family, tmp_path):
    model, given = attach(family), batch()
    model(**given).loss.backward()
    torch.optim.SGD(model.parameters(), 0.01).step()
    model.eval().save_pretrained(tmp_path)
    again = from_pretrained(tmp_path)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    plain = type(model).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(
        plain_states(plain, given["pixel_values"]),
        model(given["pixel_values"], output_hidden_states=True).hidden_states[2],
    )


@pytest.mark.parametrize("family", ["BEiT", "V-JEPA2"])
def test_what_blocks_are_told_of_kept_patches_is_there_when_they_run_again(family):
    given, found = batch(), []
    for checkpointed in (False, True):
        model = attach(family)
        if checkpointed:
            recompute(model, use_reentrant=False)
        model(**given).loss.backward()
        found.append([weight.grad for weight in latent_state(model).backbone.layers[0].parameters()])
    torch.testing.assert_close(*found)


def test_networks_that_cannot_be_tapped_are_one_line():
    mae = tf.ViTMAEModel(tf.ViTMAEConfig(**PLAIN))
    swin = tf.SwinModel(tf.SwinConfig(image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2]))
    convnext = tf.ConvNextModel(tf.ConvNextConfig(num_stages=2, hidden_sizes=[8, 16], depths=[1, 1]))
    objective = {"lm_weight": 0, **yaml.safe_load(TERMS)}
    with pytest.raises(ValueError, match="hides patches of its own choice; load the same weights with ViTModel"):
        get_latent_model(mae, objective)
    for model in (swin, convnext):
        with pytest.raises(ValueError, match="merges patches between its stages, so it has no one grid of patches"):
            get_latent_model(model, objective)
    video = attach("V-JEPA2")
    with pytest.raises(
        ValueError, match=r"32 x 32, and this network counts positions for 16 x 16; set model.config.crop"
    ):
        video(pixel_values=torch.zeros(1, 3, 32, 32), latent={"views": torch.arange(1)})
    assert copy.deepcopy(video) is not video
