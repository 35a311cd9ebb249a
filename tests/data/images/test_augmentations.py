"""Views: crops on an image of its own coordinates, colour changes against their formulas, determinism."""

import colorsys

import numpy as np
import pytest
import torch

from latentlm.data.counter_rng import example_keys
from latentlm.data.images import Views
from latentlm.data.images.augmentations import _blur, _jitter, crop, luma

KEYS = example_keys(0, 0, np.arange(64))


def _coordinates(num, side):
    """Images whose first two channels are the x and y of each pixel's centre, in shares of the side."""
    line = (torch.arange(side) + 0.5) / side
    return torch.stack([line.expand(side, side), line[:, None].expand(side, side)]).expand(num, 2, side, side)


def _noise(num=64, channels=3, side=16):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (num, channels, side, side), dtype=np.uint8))


def test_a_crop_shows_the_coordinates_of_its_box():
    boxes = Views(2, (0.2, 0.6), local=1, flip=0.5).boxes(KEYS)
    cut = crop(_coordinates(64, 64), boxes, 16).unflatten(0, (64, 3))
    centres = (torch.arange(16) + 0.5) / 16
    left, top, width, height = (part[..., None] for part in boxes.unbind(-1))
    inside = slice(2, 14)  # at the border of the image there is no pixel to interpolate with
    for row in (0, 7, 15):
        torch.testing.assert_close(cut[:, :, 0, row][..., inside], (left + width * centres)[..., inside], **CLOSE)
        torch.testing.assert_close(cut[:, :, 1, :, row][..., inside], (top + height * centres)[..., inside], **CLOSE)


CLOSE = {"atol": 1e-5, "rtol": 0}


def test_boxes_lie_inside_and_have_the_area_and_aspect_asked_for():
    views = Views(1, (0.3, 0.9), local=3, local_scale=(0.05, 0.3), flip=0.5)
    left, top, width, height = views.boxes(example_keys(1, 0, np.arange(4000))).unbind(-1)
    low, high = torch.minimum(left, left + width), torch.maximum(left, left + width)
    assert low.min() > -1e-6
    assert high.max() < 1 + 1e-6
    assert top.min() >= 0
    assert (top + height).max() < 1 + 1e-6
    area, aspect = width.abs() * height, width.abs() / height
    for part, (least, most) in ((slice(0, 1), (0.3, 0.9)), (slice(1, 4), (0.05, 0.3))):
        assert area[:, part].min() >= least - 1e-5
        assert area[:, part].max() <= most + 1e-5
        assert abs(area[:, part].mean() - (least + most) / 2) < 0.01  # uniform
    assert aspect.min() > 0.75 - 1e-4
    assert aspect.max() < 4 / 3 + 1e-3
    assert abs((width < 0).float().mean() - 0.5) < 0.03


def test_by_default_an_image_is_seen_as_it_is():
    images = _noise()
    assert torch.equal(Views()(images, KEYS, 16), images.float() / 255)
    twice = Views(2)(images, KEYS, 16)
    assert torch.equal(twice[0::2], twice[1::2])
    assert Views()(images, KEYS, 8).shape == (64, 3, 8, 8)


def test_full_crops_with_a_certain_flip_are_mirror_images():
    images = _noise()
    torch.testing.assert_close(Views(flip=1.0)(images, KEYS, 16), (images.float() / 255).flip(-1), **CLOSE)


STRONG = Views(2, (0.3, 1.0), 1, flip=0.5, jitter=0.5, grayscale=0.3, blur=0.5, solarize=0.3)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_example_looks_alike_in_every_batch_and_views_differ(channels):
    images = _noise(channels=channels)
    every = STRONG(images, KEYS, 16).unflatten(0, (64, 3))
    some = STRONG(images[5:9], KEYS[5:9], 16).unflatten(0, (4, 3))
    torch.testing.assert_close(some, every[5:9], atol=1e-6, rtol=0)
    assert every.min() >= 0
    assert every.max() <= 1
    assert (every[:, 0] - every[:, 1]).abs().amax((1, 2, 3)).min() > 0.01
    assert not torch.equal(STRONG(images, example_keys(0, 1, np.arange(64)), 16).unflatten(0, (64, 3)), every)


def test_grey_and_solarize():
    images = _noise()
    pixels = images.float() / 255
    torch.testing.assert_close(Views(grayscale=1.0)(images, KEYS, 16), luma(pixels).expand_as(pixels))
    expected = torch.where(pixels >= 0.5, 1 - pixels, pixels)
    assert torch.equal(Views(solarize=1.0)(images, KEYS, 16), expected)
    torch.testing.assert_close(luma(torch.ones(1, 3, 2, 2)), torch.ones(1, 1, 2, 2))


def test_jitter_against_its_formula():
    pixels = _noise(8, side=4).float() / 255 * 0.4 + 0.3  # nothing is clamped below
    u = torch.rand(8, 5, generator=torch.Generator().manual_seed(0))
    u[:, 4] = torch.tensor([0.0] * 7 + [0.9])  # the last one stays
    u[:, 3] = 0.5  # no turn
    found = _jitter(pixels, u, 0.25)
    for i in range(7):
        brightness, contrast, saturation = (1 + 0.2 * (2 * u[i, :3].double() - 1)).tolist()
        out = pixels[i].double() * brightness
        grey = (out * torch.tensor([0.299, 0.587, 0.114]).double()[:, None, None]).sum(0)
        out = (out - grey.mean()) * contrast + grey.mean()
        grey = (out * torch.tensor([0.299, 0.587, 0.114]).double()[:, None, None]).sum(0)
        torch.testing.assert_close(found[i].double(), grey + saturation * (out - grey), **CLOSE)
    assert torch.equal(found[7], pixels[7])


def test_hue_turns_by_the_angle_and_keeps_grey():
    middle = torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.0]])
    turned = middle.clone()
    turned[0, 3] = 1.0
    red = torch.tensor([0.6, 0.4, 0.4]).view(1, 3, 1, 1)
    out = _jitter(red, turned, 1.0).flatten().tolist()
    assert colorsys.rgb_to_hsv(*out)[0] == pytest.approx(0.2, abs=0.03)  # a fifth of a turn; HSV is a hexagon
    grey = torch.full((1, 3, 1, 1), 0.4)
    torch.testing.assert_close(_jitter(grey, turned, 1.0), grey)
    torch.testing.assert_close(_jitter(red, middle, 1.0), red)


def test_blur_is_a_gaussian():
    dot = torch.zeros(1, 1, 21, 21)
    dot[..., 10, 10] = 1
    out = _blur(dot, torch.tensor([1.5]))[0, 0].double()
    line = torch.arange(21).double() - 10
    assert out.sum() == pytest.approx(1, abs=1e-5)
    assert (out.sum(0) * line**2).sum() == pytest.approx(1.5**2, rel=1e-2)
    torch.testing.assert_close(_blur(torch.ones(2, 3, 8, 8), torch.tensor([0.1, 2.0])), torch.ones(2, 3, 8, 8))


@pytest.mark.parametrize(
    "arguments",
    [{"num": 0}, {"scale": (0.0, 1.0)}, {"scale": (0.5,)}, {"ratio": (2.0, 1.0)}, {"flip": 1.5}, {"jitter": 2.0}],
)
def test_impossible_views_are_told(arguments):
    with pytest.raises(ValueError, match=rf"^{next(iter(arguments))}"):
        Views(**arguments)


def test_views_have_their_own_probabilities_and_saturation_its_own_strength():
    keys, pixels = np.arange(6, dtype=np.uint64), draw_pixels(6)
    views = Views(
        num=2, local=3, blur=(1.0, 0.0, 0.0), solarize=(0.0, 1.0, 0.0), scale=(1.0, 1.0), local_scale=(1.0, 1.0)
    )
    found = views(pixels, keys, 16).unflatten(0, (6, 5))
    plain = Views(num=2, local=3, scale=(1.0, 1.0), local_scale=(1.0, 1.0))(pixels, keys, 16).unflatten(0, (6, 5))
    assert (found[:, 0] != plain[:, 0]).any()
    assert ((found[:, 0] - plain[:, 0]).abs() < 1).all()
    torch.testing.assert_close(found[:, 1], torch.where(plain[:, 1] >= 0.5, 1 - plain[:, 1], plain[:, 1]))
    torch.testing.assert_close(found[:, 2:], plain[:, 2:])
    for wrong, told in [
        ({"blur": (1.0, 0.1)}, "give 3, one for each global view and one for local ones"),
        ({"local_size": 8, "local": 0}, "with 0 local views"),
        ({"saturation": 0.2}, "jitter, which is 0"),
    ]:
        with pytest.raises(ValueError, match=told):
            Views(**({"num": 2, "local": 3} | wrong))
    u = torch.tensor([[0.5, 0.5, 1.0, 0.5, 0.0]])
    red = torch.tensor([0.6, 0.4, 0.4]).view(1, 3, 1, 1)
    torch.testing.assert_close(_jitter(red, u, 0.0, 0.5), _saturated(red, 1.4))


def draw_pixels(num):
    return (torch.rand(num, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)


def _saturated(pixels, factor):
    grey = (pixels * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    return grey + factor * (pixels - grey)
