"""Batches of images: every set points where it should, conservation, determinism, mistakes in one line."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from latentlm.components.positions import Now
from latentlm.config.schema import ConfigError, dump, parse
from latentlm.data.counter_rng import example_keys, uniforms
from latentlm.data.images import Blocks, Digits, ImageCollator, Images, InverseBlock, Random, Views
from latentlm.experiment.callbacks import Epochs
from latentlm.experiment.recipe import load_recipe

VIEWS = Views(2, (0.5, 1.0), local=1, flip=0.5)
MASKS = [None, Random(), Random((0.2, 0.4), 0.5, drop=False), Blocks(min_seen=1), InverseBlock(predict=0.3)]


@pytest.fixture(scope="module")
def dataset():
    return Images(Digits()).dataset()


def _batch(dataset, mask, views=VIEWS, num=6, **kwargs):
    collator = Images(Digits(), views, mask).collator(8, 2, kwargs.pop("channels", 1), ())
    return replace(collator, sets=Images(Digits(), views, mask).sets)(dataset.__getitems__(range(num)))


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_every_set_points_where_it_should(dataset, mask):
    batch = _batch(dataset, mask)
    latent, p = batch["latent"], 16
    assert batch["pixel_values"].shape == (18, 1, 8, 8)
    assert latent["views"].tolist() == [0, 1, 2]
    first = torch.tensor([0, 17, 34])
    assert torch.equal(latent["cls"], first.expand(6, 1, 3))
    assert torch.equal(latent["cls_global"], first[:2].expand(6, 1, 2))
    pairs = [*zip(latent["cls_1"][0].flatten().tolist(), latent["cls_2"][0].flatten().tolist(), strict=True)]
    assert sorted(pairs) == [(0, 17), (17, 0), (34, 0), (34, 17)]  # every view and every other global one
    every = torch.cat([first[:, None], latent["patches"][0]], 1)
    assert every.flatten().tolist() == list(range(3 * (1 + p)))
    if mask is None:
        names = {"cls", "cls_global", "cls_1", "cls_2", "matched_patches_1", "matched_patches_2", "patches"}
        assert set(latent) == {"views", "patches_1", "patches_2", *names}
        return
    for i in range(6):
        for w in range(3):
            here = set(latent["patches"][i, w].tolist())
            seen = {j for j in latent["visible"][i, w].tolist() if j >= 0}
            if mask.drop:
                keep = {j for j in latent["keep"][i * 3 + w].tolist() if j >= 0}
            else:
                keep = set((~latent["mask"][i * 3 + w]).nonzero().flatten().tolist())
            assert seen == {w * 17 + 1 + j for j in keep}
            if w == 2:
                assert seen == here  # a local view is seen whole
                continue
            blocks = latent["masked"][i].unflatten(0, (2, -1))[w]
            masked = {j for j in blocks.flatten().tolist() if j >= 0}
            assert masked <= here - seen
            if not isinstance(mask, Blocks) and getattr(mask, "predict", 1.0) == 1.0:
                assert masked | seen == here  # nothing is lost


@pytest.mark.parametrize(
    ("taught", "local", "wanted"),
    [
        (("cls_2",), 1, [0, 1]),
        (("cls_2", "masked"), 1, [0, 1]),
        (("cls_2", "patches"), 1, None),
        ((Now(),), 1, None),
        ((), 1, None),
        (("cls_2",), 0, None),
    ],
)
def test_copies_of_the_network_run_on_global_views_where_they_are_read_nowhere_else(dataset, taught, local, wanted):
    views = replace(VIEWS, local=local)
    found = Images(Digits(), views).collator(8, 2, 1, (), taught)(dataset.__getitems__(range(2)))["latent"]
    assert (found["taught"].tolist() if "taught" in found else None) == wanted


@pytest.mark.parametrize(
    ("name", "taught"),
    [
        ("dino", {"cls_2"}),
        ("dinov2", {"cls_2", "masked"}),
        ("capi", {"masked", "patches"}),
        ("dense_gram", {"cls_2", "patches"}),
        ("constructive", {"masked"}),
        ("mae", set()),
        ("simsiam", set()),
    ],
)
def test_recipes_know_where_copies_are_read(name, taught):
    assert set(load_recipe(name).taught) == taught


def test_views_of_an_example_are_hidden_differently(dataset):
    keep = _batch(dataset, Random(0.5))["latent"]["keep"].unflatten(0, (6, 3))
    assert not torch.equal(keep[:, 0], keep[:, 1])


@pytest.mark.parametrize("mask", [Random(), Blocks(min_seen=1)], ids=str)
def test_an_example_is_the_same_in_any_batch_worker_and_run(mask):
    part = Images(Digits(), VIEWS, mask)
    collator = part.collator(8, 2, 1, ("visible",))
    dataset = part.dataset(seed=3)
    whole = collator(dataset.__getitems__(range(8)))
    alone = collator([part.dataset(seed=3)[5]])
    torch.testing.assert_close(whole["pixel_values"][15:18], alone["pixel_values"], atol=1e-6, rtol=0)
    keep = alone["latent"]["keep"][:2]
    assert torch.equal(whole["latent"]["keep"][15:17, : keep.shape[1]][keep >= 0], keep[keep >= 0])
    loader = DataLoader(dataset, 4, collate_fn=collator, num_workers=1)
    dataset.set_epoch(1)
    first = next(iter(loader))["pixel_values"]
    other = part.dataset(seed=3)
    other.set_epoch(1)
    assert torch.equal(first, collator(other.__getitems__(range(4)))["pixel_values"])
    assert not torch.equal(first, whole["pixel_values"][:12])
    assert not torch.equal(collator(part.dataset(seed=4).__getitems__(range(4)))["pixel_values"], first)


def test_the_data_is_told_which_epoch_it_is():
    dataset = Images(Digits(), VIEWS, max_images=8).dataset()
    for epoch in (0.0, 1.0, 1.5, 2.9999999):  # the last one: rounding at the end of an epoch
        Epochs().on_epoch_begin(
            None, SimpleNamespace(epoch=epoch), None, train_dataloader=SimpleNamespace(dataset=dataset)
        )
        assert dataset.epoch == round(epoch - 0.4)


def test_pixels_are_standardised_and_channels_fit_the_model(dataset):
    image = torch.from_numpy(dataset.images.images[:6]).float() / 255
    grey = _batch(dataset, None, Views())["pixel_values"]
    torch.testing.assert_close(grey, image * 2 - 1)
    colours = _batch(dataset, None, Views(), channels=3)["pixel_values"]
    torch.testing.assert_close(colours, (image * 2 - 1).expand(-1, 3, -1, -1))
    collator = ImageCollator(Views(), None, 8, 2, 1, mean=(0.25,), std=(0.5,))
    red = np.zeros((3, 8, 8), np.uint8)
    red[0] = 255
    out = collator([{"image": red, "key": np.uint64(1)}])["pixel_values"]
    torch.testing.assert_close(out, torch.full((1, 1, 8, 8), (0.299 - 0.25) / 0.5))


def test_numbers_of_a_key_are_flat_and_independent():
    u = uniforms(example_keys(0, 0, np.arange(20000)), "crop", 8)
    assert u.min() >= 0
    assert u.max() < 1
    histogram = torch.histc(u, 20, 0, 1) / u.numel()
    assert (histogram - 0.05).abs().max() < 0.002
    others = [uniforms(example_keys(0, 0, np.arange(20000)), "random", 8)]
    others += [uniforms(example_keys(seed, epoch, np.arange(20000)), "crop", 8) for seed, epoch in ((1, 0), (0, 1))]
    every = torch.cat([u, *others], 1)
    correlation = torch.corrcoef(every.T) - torch.eye(32)
    assert correlation.abs().max() < 5 / 20000**0.5
    assert torch.corrcoef(torch.stack([u[1:, 0], u[:-1, 0]]))[0, 1].abs() < 5 / 20000**0.5


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("flip", [0.0, 1.0, 0.5])
def test_places_of_two_views_show_the_same_of_the_image(flip, mask):
    """The image shows its own coordinates, so the mean of a patch is where its centre lies."""
    views, size, side, b = Views(2, (0.3, 1.0), local=1, flip=flip), 32, 8, 24
    ramp = (torch.arange(64) + 0.5) / 64 * 255
    image = (
        torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), ramp.expand(64, 64)]).round().to(torch.uint8)
    )
    examples = [{"image": image.numpy(), "key": int(key)} for key in example_keys(0, 0, np.arange(b))]
    sets = ("cls_1", "cls_2", "matched_patches_1", "matched_patches_2", *(("visible",) if mask else ()))
    batch = ImageCollator(views, mask, size, size // side, 3, (0.0,), (1.0,), sets)(examples)
    latent, p = batch["latent"], side**2
    centres = batch["pixel_values"].unfold(2, 4, 4).unfold(3, 4, 4).mean((-2, -1))[:, :2]  # x and y of every patch
    centres = centres.flatten(2).transpose(1, 2).unflatten(0, (b, 3))
    boxes = views.boxes(np.array([example["key"] for example in examples], dtype=np.uint64))
    found = 0
    for row in range(b):
        for pair, (one, other) in enumerate([(1, 0), (2, 0), (0, 1), (2, 1)]):
            assert latent["cls_1"][row, pair, 0] == one * (1 + p)
            assert latent["cls_2"][row, pair, 0] == other * (1 + p)
            here, there = latent["matched_patches_1"][row, pair], latent["matched_patches_2"][row, pair]
            assert torch.equal(here >= 0, there >= 0)
            seen = [range(1 + w * (1 + p), (w + 1) * (1 + p)) for w in range(3)]
            if mask:
                seen = [set(latent["visible"][row, w].tolist()) & set(seen[w]) for w in range(3)]
            left, top, width, height = boxes[row, other].tolist()
            for j in range(p):
                centre = centres[row, one, j]
                if here[j] < 0:
                    at = (centre - torch.tensor([left, top])) / torch.tensor([width, height])
                    assert mask or ((at < 0.02) | (at > 0.98)).any()
                    continue
                assert here[j] == one * (1 + p) + 1 + j
                assert int(here[j]) in seen[one]
                assert int(there[j]) in seen[other]
                apart = (centres[row, other, int(there[j]) - other * (1 + p) - 1] - centre).abs()
                assert apart[0] <= abs(width) / side / 2 + 0.02
                assert apart[1] <= height / side / 2 + 0.02
                found += 1
    assert found > (4 if mask else 40) * b


def test_a_recipe_says_it_in_a_few_words():
    text = {"source": "digits", "views": {"num": 2, "scale": [0.3, 1]}, "mask": {"kind": "blocks"}}
    part = parse(Images, text, "data")
    assert part == Images(Digits(), Views(2, (0.3, 1.0)), Blocks())
    assert parse(Images, dump(part), "data") == part
    paired = ("cls_1", "cls_2", "matched_patches_1", "matched_patches_2", "patches_1", "patches_2")
    assert part.sets == ("cls", "cls_global", *paired, "patches", "visible", "masked")
    assert Images(Digits()).sets == ("cls", "cls_global", "patches")
    assert len(Images(Digits(), max_images=7).dataset()) == 7


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"size": 9}, "image_size 9 is no multiple of patch_size 2"),
        ({"channels": 2}, "num_channels 2"),
        ({"sets": ("masked",), "mask": None}, "data: gives no masked; with these views and mask it has: cls"),
        ({"mask": Random(0.01)}, r"^data.mask.ratio: hides 0 to 0 of 16 patches"),
        ({"size": 2, "mask": Random()}, "of 1 patches"),
    ],
)
def test_what_cannot_work_is_told_before_training(arguments, line):
    good = {"views": Views(), "mask": Random(), "size": 8, "patch": 2, "channels": 1}
    with pytest.raises(ConfigError, match=line):
        ImageCollator(**good | arguments)
    with pytest.raises(ValueError, match=r"^max_images"):
        Images(Digits(), max_images=0)
    with pytest.raises(ValueError, match=r"^mean, std"):
        Images(Digits(), std=(0.0,))
