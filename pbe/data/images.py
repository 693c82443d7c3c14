"""Image files in and out: whatever the file holds, the project sees (H, W, 3) uint8 RGB, the right way up."""

import struct
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps

Image = NDArray[np.uint8]

_ORIENTATION_TAG = 0x0112
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, PillowImage.DecompressionBombError)


def read_image(path: Path) -> Image:
    """Decode a whole image file to (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    Greyscale, palette, CMYK and 16-bit files become RGB; transparency is laid over white.
    Raises ValueError naming the file when it is missing, truncated or not an image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd EXIF blocks; the pixels decide here
            with PillowImage.open(path) as opened:
                opened.load()
                return np.array(_as_rgb(_upright(opened)), np.uint8)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except _BROKEN as error:
        raise ValueError(f"{path}: cannot be decoded as an image: {_one_line(error)}") from None


def image_size(path: Path) -> tuple[int, int]:
    """Read (width, height) from the file's header, as `read_image` would return it, without decoding a pixel.

    Raises ValueError naming the file when the header cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PillowImage.open(path) as opened:
                width, height = opened.size
                turned = _orientation(opened) >= 5
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except _BROKEN as error:
        raise ValueError(f"{path}: not an image: {_one_line(error)}") from None
    return (height, width) if turned else (width, height)


def _orientation(opened: PillowImage.Image) -> int:
    """The EXIF orientation, 1..8; 1 where there is none or it cannot be read."""
    try:
        value = opened.getexif().get(_ORIENTATION_TAG, 1)
    except (*_BROKEN, KeyError, TypeError):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(opened: PillowImage.Image) -> PillowImage.Image:
    if _orientation(opened) == 1:
        return opened
    return ImageOps.exif_transpose(opened)


def _as_rgb(image: PillowImage.Image) -> PillowImage.Image:
    if image.mode.startswith("I"):  # 16-bit greyscale: convert() would clip it to white
        levels = np.asarray(image).astype(np.float64) / 257
        return PillowImage.fromarray(np.clip(levels.round(), 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = PillowImage.new("RGBA", rgba.size, (255, 255, 255, 255))
        return PillowImage.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).split("<_io.")[0].strip() or type(error).__name__
