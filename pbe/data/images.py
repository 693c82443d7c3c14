"""Image files in and out: whatever the file holds, the project sees (H, W, 3) uint8 RGB, the right way up.

A plain JPEG is decoded by OpenCV, anything else and anything odd by Pillow. Both carry libjpeg-turbo and give the same
bits; OpenCV writes them once, straight into the array.
"""

import io
import struct
import warnings
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps

Image = NDArray[np.uint8]

_ORIENTATION_TAG = 0x0112
_START_OF_IMAGE, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_REDUCTIONS = {1: 0, 2: 16, 4: 32, 8: 64}  # the flag of cv2.IMREAD_REDUCED_*, without their order of channels
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, PillowImage.DecompressionBombError)


def read_image(path: Path, reduction: int = 1) -> Image:
    """Decode a whole image file to (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    `reduction` 2, 4 or 8 gives both sides divided by it, rounded up; JPEGs are then decoded at that scale.
    Greyscale, palette, CMYK and 16-bit files become RGB; transparency is laid over white.
    Raises ValueError naming the file when it is missing, truncated or not an image.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {_one_line(error)}") from None
    return decode_image(data, path, reduction)


def decode_image(data: bytes, name: object, reduction: int = 1) -> Image:
    """Decode an image file's bytes as `read_image` does; `name` is what errors call it."""
    plain = _decode_plain_jpeg(data, reduction)
    if plain is not None:
        return plain
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd EXIF blocks; the pixels decide here
            with PillowImage.open(io.BytesIO(data)) as opened:
                opened.load()
                image = _as_rgb(_upright(opened))
                return np.array(image.reduce(reduction) if reduction > 1 else image, np.uint8)
    except _BROKEN as error:
        raise ValueError(f"{name}: cannot be decoded as an image: {_one_line(error)}") from None


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


def _decode_plain_jpeg(data: bytes, reduction: int) -> Image | None:
    """A whole, upright JPEG of one or three 8-bit channels; None for all else, which is Pillow's to judge."""
    size = _plain_jpeg_size(data)
    if size is None:
        return None
    flags = _JPEG_REDUCTIONS[reduction] | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None or decoded.shape != (-(-size[0] // reduction), -(-size[1] // reduction), 3):
        return None
    return np.asarray(decoded, np.uint8)


def _plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) from the frame header of a JPEG that needs no more than decoding; None for all else."""
    if not data.startswith(_START_OF_IMAGE) or _END_OF_IMAGE not in data[-32:]:
        return None
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0" and not _is_upright(data):
            return None
        if marker in _FRAME_MARKERS:
            bits, height, width, channels = struct.unpack(">BHHB", data[at + 4 : at + 10])
            limit = PillowImage.MAX_IMAGE_PIXELS or 0
            plain = bits == 8 and channels in (1, 3) and 0 < height * width <= limit
            return (height, width) if plain else None
        at += 2 + length
    return None


def _is_upright(data: bytes) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PillowImage.open(io.BytesIO(data)) as opened:
                return _orientation(opened) == 1
    except _BROKEN:
        return False


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
