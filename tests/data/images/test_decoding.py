"""Files to pixels: every mode against its known pixels, all orientations, crops where they should be."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from latentlm.data.counter_rng import example_keys
from latentlm.data.images import ImageCollator, Random, Views
from latentlm.data.images.decoding import EncodedImage, UnreadableError
from latentlm.data.images.stored import centre_square, cut

RAMP = np.tile(np.linspace(0, 255, 64), (64, 1))


def encoded(image: Image.Image, kind: str = "PNG", **more) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def pixels(file: bytes, mode="RGB") -> np.ndarray:
    image = EncodedImage(file)
    return np.asarray(image.pixels(mode, (float(image.width), float(image.height))))


def ramps() -> dict[str, bytes]:
    """The same grey ramp in many modes."""
    grey = Image.fromarray(RAMP.round().astype(np.uint8))
    sixteen = (RAMP * 257).round().astype(np.uint16)
    alpha = grey.convert("RGBA")
    return {
        "L": encoded(grey),
        "16 bits": encoded(Image.fromarray(sixteen)),
        "16 bits, TIFF": encoded(Image.fromarray(sixteen), "TIFF"),
        "32 bits, TIFF": encoded(Image.fromarray(sixteen.astype(np.int32)), "TIFF"),
        "floats, TIFF": encoded(Image.fromarray((RAMP / 255).astype(np.float32)), "TIFF"),
        "RGB": encoded(grey.convert("RGB")),
        "RGBA": encoded(alpha),
        "LA": encoded(grey.convert("LA")),
        "palette": encoded(grey.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=256)),
        "CMYK": encoded(grey.convert("RGB").convert("CMYK"), "JPEG", quality=98),
        "GIF": encoded(grey, "GIF"),
        "WebP": encoded(grey.convert("RGB"), "WEBP", lossless=True),
    }


@pytest.mark.parametrize("name", ramps())
def test_every_mode_is_the_ramp_that_it_shows(name):
    for mode in ("RGB", "L"):
        found = pixels(ramps()[name], mode)
        assert found.dtype == np.uint8
        assert found.shape == ((64, 64, 3) if mode == "RGB" else (64, 64))
        assert np.abs(found.reshape(64, 64, -1) - RAMP[..., None]).max() <= (3 if name == "CMYK" else 1)


def test_transparent_pixels_are_white_in_every_mode_that_has_them():
    clear = np.zeros((64, 64, 4), np.uint8)
    clear[..., 0] = 255  # red, which nobody sees
    clear[20:40, 20:40] = (0, 255, 0, 255)
    image = Image.fromarray(clear)
    palette = Image.new("P", (64, 64), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.paste(1, (20, 20, 40, 40))
    grey = Image.new("L", (64, 64), 7)
    grey.paste(150, (20, 20, 40, 40))
    for file in (encoded(image), encoded(palette, transparency=0), encoded(image, "WEBP", lossless=True, exact=True)):
        found = pixels(file)
        assert found[0, 0].tolist() == [255, 255, 255]
        assert found[30, 30].tolist() == [0, 255, 0]
    assert pixels(encoded(grey, transparency=7), "L")[[0, 30], [0, 30]].tolist() == [255, 150]


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("sixteen", [False, True])
def test_images_are_turned_as_their_camera_says(turn, sixteen):
    """Whatever the orientation, a viewer sees a bright band at the top of an image of 48 x 32."""
    shown = np.zeros((32, 48), np.uint16 if sixteen else np.uint8)
    shown[:8] = 65535 if sixteen else 255
    shown[:8, :8] = 0
    back = {1: shown, 2: shown[:, ::-1], 3: shown[::-1, ::-1], 4: shown[::-1], 5: shown.T, 6: np.rot90(shown)}
    back |= {7: np.rot90(shown.T, 2), 8: np.rot90(shown, -1)}
    image = Image.fromarray(np.ascontiguousarray(back[turn]))
    exif = image.getexif()
    exif[0x0112] = turn
    opened = EncodedImage(encoded(image, exif=exif))
    assert (opened.width, opened.height) == (48, 32)
    found = np.asarray(opened.pixels("L", (48.0, 32.0)))
    assert np.array_equal(found, np.where(shown > 0, 255, 0))


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (b"", "cannot identify"),
        (b"nothing", "cannot identify"),
        (encoded(Image.fromarray((RAMP - 9).astype(np.float32)), "TIFF"), "from -9 to 246; floats must be from 0 to 1"),
        (encoded(Image.fromarray((RAMP * 1000).astype(np.int32)), "TIFF"), "integers must be from 0 to 65535"),
    ],
)
def test_what_cannot_be_read_says_why(file, told):
    with pytest.raises(UnreadableError, match=told):
        pixels(file)
    half = encoded(Image.effect_noise((64, 64), 50))
    with pytest.raises(UnreadableError):
        pixels(half[: len(half) // 2])


def coordinates(width: int, height: int) -> bytes:
    """An image whose red is the column, whose green is the row, both from 0 to 255."""
    x, y = np.linspace(0, 255, width), np.linspace(0, 255, height)
    array = np.stack([*np.meshgrid(x, y), np.zeros((height, width))], -1)
    return encoded(Image.fromarray(array.round().astype(np.uint8)), "JPEG", quality=98, subsampling=0)


@pytest.mark.parametrize(("width", "height"), [(500, 375), (240, 600), (1600, 1200)])
def test_crops_are_where_their_boxes_say(width, height):
    image = EncodedImage(coordinates(width, height))
    boxes = [(0.0, 0.0, 1.0, 1.0), (0.25, 0.5, 0.5, 0.25), (0.75, 0.5, -0.5, 0.25)]
    whole, part, mirrored = (view.float() / 255 for view in cut(image, boxes, [64, 32, 32], "RGB"))
    assert whole.shape == (3, 64, 64)
    assert part.shape == (3, 32, 32)
    torch.testing.assert_close(part.flip(-1), mirrored)
    middle = (torch.arange(32) + 0.5) / 32
    assert (part[0].mean(0) - (0.25 + 0.5 * middle)).abs().max() < 0.02
    assert (part[1].mean(1) - (0.5 + 0.25 * middle)).abs().max() < 0.02
    square = centre_square(EncodedImage(coordinates(width, height)), 16, "RGB").float() / 255
    side = min(width, height)
    for axis, long in ((0, width), (1, height)):
        line = square[axis].mean(0 if axis == 0 else 1)
        span = (float(line[-1]) - float(line[0])) / (15 / 16)
        assert span == pytest.approx(side / long, abs=0.03)
        assert line.mean().item() == pytest.approx(0.5, abs=0.02)


def test_a_jpeg_decoded_smaller_gives_the_same_crops():
    """Only as many pixels are decoded as are needed; the crop stays within a grey level of the exact one on average."""
    draw = np.random.default_rng(0)
    rough = Image.fromarray(draw.integers(0, 255, (30, 40, 3), dtype=np.uint8)).resize((1600, 1200), 3)
    file, box = encoded(rough, "JPEG", quality=92), (0.2, 0.2, 0.5, 0.6)
    (found,) = cut(EncodedImage(file), [box], [64], "RGB")
    left, top, wide, high = box
    area = (left * 1600, top * 1200, (left + wide) * 1600, (top + high) * 1200)
    exact = np.asarray(Image.open(io.BytesIO(file)).resize((64, 64), Image.Resampling.BICUBIC, area))
    apart = np.abs(found.permute(1, 2, 0).numpy().astype(float) - exact)
    assert apart.mean() < 1
    assert EncodedImage(file).pixels("RGB", (128.0, 107.0)).width == 400


@pytest.mark.parametrize("aspect", [1.0, 4 / 3, 3.0, 0.25])
def test_crops_of_any_shape_of_image_have_the_ratio_and_area_that_are_asked_for(aspect):
    views = Views(2, (0.3, 0.9), local=3, local_scale=(0.05, 0.2), ratio=(0.75, 4 / 3), flip=0.5)
    boxes = views.boxes(example_keys(0, 0, np.arange(400)), aspect)
    left, top, width, height = boxes.unbind(-1)
    shown = width.abs() / height * aspect
    assert ((shown > 0.75 - 1e-4) & (shown < 4 / 3 + 1e-4)).all()
    area = (width.abs() * height)[:, 2:]
    assert ((area > 0.05 - 1e-4) & (area < 0.2 + 1e-4)).all()
    assert (torch.minimum(left, left + width) > -1e-5).all()
    assert (torch.maximum(left, left + width) < 1 + 1e-5).all()
    assert (top > -1e-5).all()
    assert (top + height < 1 + 1e-5).all()
    square = Views(flip=1.0).boxes(example_keys(0, 0, np.arange(2)), aspect)[0, 0]
    assert square[2] < 0
    assert (-square[2] * aspect / square[3]).item() == pytest.approx(1)
    assert max(-square[2].item(), square[3].item()) == pytest.approx(1)


def test_files_paths_images_and_arrays_make_the_same_batch(tmp_path):
    draw = np.random.default_rng(0)
    arrays = [
        np.asarray(Image.fromarray(draw.integers(0, 255, (9, 12, 3), dtype=np.uint8)).resize((60, 44))) for _ in "ab"
    ]
    collate = ImageCollator(Views(2, (0.5, 1.0), flip=0.5), Random(), 32, 8, 3, sets=("visible", "cls_1"))
    files = [encoded(Image.fromarray(array)) for array in arrays]
    (tmp_path / "0.png").write_bytes(files[0])
    batches = []
    for images in (files, [str(tmp_path / "0.png"), files[1]], [Image.fromarray(array) for array in arrays]):
        batches.append(collate([{"image": image, "key": np.uint64(i)} for i, image in enumerate(images)]))
    for batch in batches[1:]:
        assert torch.equal(batch["pixel_values"], batches[0]["pixel_values"])
        assert torch.equal(batch["latent"]["visible"], batches[0]["latent"]["visible"])
    held = [{"image": array.transpose(2, 0, 1), "key": np.uint64(i)} for i, array in enumerate(arrays)]
    smooth = (collate(held)["pixel_values"] - batches[0]["pixel_values"]).abs()  # another filter, the same crops
    assert smooth.mean() < 0.1
    torch.manual_seed(0)
    one = collate([{"image": files[0]}])["pixel_values"]
    torch.manual_seed(0)
    assert torch.equal(one, collate([{"image": files[0]}])["pixel_values"])
    assert not torch.equal(one, collate([{"image": files[0]}])["pixel_values"])
