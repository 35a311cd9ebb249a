"""An image file to pixels: turned as its camera says, 8 bits, no transparency, no more of it decoded than is needed."""

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np

Mode = Literal["RGB", "L"]
_ORIENTATION = 0x0112  # the tag of EXIF
_SIXTEEN = 65535
_GAP = 2.0  # a JPEG is decoded at half its side only while that leaves twice the pixels that are asked for


class UnreadableError(ValueError):
    """An image that cannot be decoded; the message is why."""


class EncodedImage:
    """An image whose size is known and whose pixels are decoded when it is known how many are needed.

    Rotation and mirroring of EXIF are applied; values of 16 bits are divided by 257; transparent pixels are composited
    on white; CMYK, palettes and grey become the mode that is asked for. Of an animation the first frame is read.

    Checked:   tests/data/images/test_decoding.py - every mode against its known pixels, all eight orientations.

    Args:
        file: a path, bytes, or an image that PIL has opened.

    Attributes:
        width, height: as the image is shown.
    """

    def __init__(self, file: Any):
        from PIL import Image

        try:
            file = io.BytesIO(file) if isinstance(file, bytes) else file
            self._image: Any = Image.open(file) if isinstance(file, str | Path | io.BytesIO) else file
            self._is_turned = 5 <= int(self._image.getexif().get(_ORIENTATION, 1)) <= 8
            self.width, self.height = self._image.size[:: -1 if self._is_turned else 1]
        except Exception as error:  # on damaged bytes PIL's parsers raise whatever they run into
            raise UnreadableError(_reason(error)) from error

    @property
    def aspect(self) -> float:
        """Width / height."""
        return self.width / self.height

    def pixels(self, mode: Mode, least: tuple[float, float]) -> Any:
        """A PIL image of `mode`, upright; `least`: width and height below which it need not be decoded exactly."""
        from PIL import ImageOps

        wide, high = (max(1, round(_GAP * side)) for side in least)
        try:
            image = self._image
            image.draft(None, (high, wide) if self._is_turned else (wide, high))  # JPEG alone knows how
            ImageOps.exif_transpose(image, in_place=True)
            return _converted(image, mode)
        except Exception as error:  # as above
            raise UnreadableError(_reason(error)) from error


def _converted(image: Any, mode: Mode) -> Any:
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_eight_bits(np.asarray(image), image.mode))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        shown = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Integers of 16 bits, or floats from 0 to 1, as 0 to 255."""
    most = 1.0 if mode == "F" else float(_SIXTEEN)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= most):
        span = f"{values.min():g} to {values.max():g}"
        raise ValueError(f"values from {span}; {'floats' if mode == 'F' else 'integers'} must be from 0 to {most:g}")
    return (values.astype(np.float64) * (255 / most)).round().astype(np.uint8)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
