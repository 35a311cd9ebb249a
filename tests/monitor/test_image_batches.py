"""Mistakes of an own loop on images are told at the first step, and nothing that the collator makes is one."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTModel

from latentlm import get_latent_model, image_collator
from latentlm.attach.state import latent_state
from latentlm.backbones import find_backbone
from latentlm.config.catalog import method_names
from latentlm.config.schema import ConfigError
from latentlm.data.images import ImageCollator, Random, Views
from latentlm.experiment.recipe import load_recipe
from latentlm.monitor.image_batches import STEPS, check_image_batch

VISION = sorted(name for name, path in method_names().items() if path.parent.name == "vision")
SEEN = torch.arange(16).expand(8, 16)
MASKS = {"keep": SEEN, "visible": SEEN[:, None] + 1, "masked": torch.arange(17, 65).expand(8, 1, 48)}


def vit(recipe):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
    model = get_latent_model(ViTModel(ViTConfig(**sizes, image_size=32, patch_size=4)), recipe).train()
    latent_state(model).steps.total = 100
    return model


def crops(num=32, seed=0, differ=True):
    """Two crops each of images that differ in their colours (or do not), as a loop stacks them: image by image."""
    draw = np.random.default_rng(seed)
    rough = draw.integers(-40, 40, (num, 3, 3, 3)) + (draw.integers(40, 215, (num, 1, 1, 3)) if differ else 99)
    files = [Image.fromarray(each.astype(np.uint8)).resize((48, 40), Image.Resampling.BICUBIC) for each in rough]
    views = Views(2, (0.2, 1.0), flip=0.5, jitter=0.5, grayscale=0.2, blur=0.5)
    torch.manual_seed(seed)
    return ImageCollator(views, None, 32, 4, 3, sets=("cls", "cls_1", "cls_2"))([{"image": each} for each in files])


def grid():
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return find_backbone(ViTModel(ViTConfig(**sizes, image_size=32, patch_size=4))).grid


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"visible": SEEN[:, None]}, r"latent.visible: holds a class token; patch j of view w is at position w \* 65"),
        ({"masked": MASKS["masked"] - 1}, "latent.masked: holds patches that the network sees, so the answer"),
        ({"masked": MASKS["visible"]}, "latent.masked: holds patches that the network sees, so the answer"),
        ({"visible": SEEN[:, None] + 21}, "latent.visible: holds patches that keep or mask hides"),
        ({"masked": MASKS["masked"] + 1}, "latent.masked: position 65 is not among the 65 of an image"),
        ({"keep": SEEN + 50}, "latent.keep: patch 65 of 64; it holds patch numbers, 0 to 63"),
        ({"masked": None}, "latent: the batch has no masked, which pixels reads; make batches with"),
        ({"masked": MASKS["masked"][:4]}, "latent.masked: 4 rows, but pixel_values are 8 rows of 1 views"),
        ({"views": torch.arange(3)}, "latent.visible: 8 rows, but pixel_values are 8 rows of 3 views"),
    ],
)
def test_sets_that_point_to_the_wrong_patches_are_refused(changed, line):
    latent = {name: value for name, value in (MASKS | changed).items() if value is not None}
    with pytest.raises(ValueError, match=line):
        vit("mae")(pixel_values=torch.rand(8, 3, 32, 32), latent=latent)


def test_masks_of_transformers_own_and_no_sets_at_all_say_what_is_missing():
    for more in ({}, {"bool_masked_pos": torch.rand(8, 64) < 0.75}):
        with pytest.raises(ValueError, match="latent: the batch has no visible, masked, which pixels reads"):
            vit("mae")(pixel_values=torch.rand(8, 3, 32, 32), **more)


def test_the_right_batch_is_silent_and_checks_end():
    model = vit("mae")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(STEPS):
            model(pixel_values=torch.rand(8, 3, 32, 32), latent=MASKS)
    model(pixel_values=torch.rand(8, 3, 32, 32), latent=MASKS | {"masked": MASKS["visible"]})  # no longer looked at


def test_a_batch_without_a_masked_patch_is_told():
    collate = ImageCollator(Views(), Random(0.5, probability=1e-6, drop=False), 32, 4, 3, sets=("visible", "masked"))
    batch = collate([{"image": np.zeros((3, 32, 32), np.uint8), "key": np.uint64(i)} for i in range(4)])
    with pytest.warns(UserWarning, match="latent.masked: no image of this batch has a masked patch"):
        check_image_batch(batch["pixel_values"], batch["latent"], grid(), load_recipe("mae").objective)


@pytest.mark.parametrize("seed", range(4))
def test_crops_in_the_wrong_order_are_told_and_in_the_right_one_not(seed):
    batch = crops(seed=seed)
    as_lightly = batch["pixel_values"].unflatten(0, (32, 2)).transpose(0, 1).flatten(0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vit("dino")(**batch)
        alike = crops(seed=seed, differ=False)
        vit("dino")(**alike)  # nothing can be said
    with pytest.warns(UserWarning, match=r"row i looks like row i \+ 32, not like the next one: the 2 views"):
        vit("dino")(**(batch | {"pixel_values": as_lightly}))


@pytest.mark.parametrize("name", VISION)
def test_no_batch_of_a_recipe_is_a_mistake(name):
    more = ["objective.terms.seen_by_mae.target.checkpoint=none"] if name == "salt" else []
    recipe = load_recipe(name, [*more, "data.source.num_train=16"])
    collate = recipe.data.collator(32, 4, 3, recipe.sets, recipe.taught)
    batch = collate(recipe.data.dataset().__getitems__(range(16)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_image_batch(batch["pixel_values"], batch["latent"], grid(), recipe.objective)


def test_random_masks_that_leave_images_whole_are_no_mistake():
    collate = ImageCollator(Views(), Random(0.5, probability=0.5, drop=False), 32, 4, 3, sets=("visible", "masked"))
    images = [{"image": np.zeros((3, 32, 32), np.uint8), "key": np.uint64(i)} for i in range(8)]
    vit("mae")(**collate(images))


@pytest.mark.parametrize("name", ["dinov2", "vicreg", "mae", "ijepa"])
def test_a_models_collator_makes_batches_that_it_trains_on(name):
    recipe = load_recipe(name)
    model = vit(name)
    collate = image_collator(model, recipe.data.views, recipe.data.mask)
    assert set(collate.sets) == set(recipe.sets)
    assert collate.taught == recipe.taught
    images = [{"image": np.full((3, 40, 50), i, np.uint8)} for i in range(16)]
    assert model(**collate(images)).loss.isfinite()
    views = [torch.rand(8, 3, 32, 32) for _ in range(recipe.data.views.total)]
    batch = collate.of_views(views)
    assert torch.equal(batch["pixel_values"][:: len(views)], views[0])  # image by image
    assert model(**batch).loss.isfinite()
    with pytest.raises(ValueError, match=r"^views: 9 are given"):
        collate.of_views([views[0]] * 9)


def test_views_that_others_made_have_no_places_in_common():
    collate = image_collator(vit("constructive_places"), Views(2, (0.5, 1.0)))
    assert "matched_patches_1" in collate.sets
    with pytest.raises(ValueError, match="nothing says where these crops lie"):
        collate.of_views([torch.rand(8, 3, 32, 32)] * 2)


def test_a_collator_says_what_a_method_needs():
    with pytest.raises(ConfigError, match="data: gives no cls_1, cls_2; with these views and mask it has: cls"):
        image_collator(vit("dino"))
