"""Image files in and out: whatever the file holds, the project sees (H, W, 3) uint8 RGB, the right way up.

A plain JPEG is decoded by OpenCV, anything else and anything odd by Pillow. Both carry libjpeg-turbo and give the same
bits; OpenCV writes them once, straight into the array.

What cannot be had right is refused by name, and by its header alone: more than MAX_PIXELS, which a decoder would fill
the memory with; animations and files of many pages, as nothing says which picture the boxes are of; pixels without an
agreed range (floats, 32 bits) or colour (LAB); formats other than FORMATS.
"""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from pbe.errors import UserError, one_line

Image = NDArray[np.uint8]

MAX_PIXELS = 100_000_000  # 10,000 x 10,000; 300 MB as RGB
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

_MODES = frozenset(("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"))
_SIXTEEN_BITS = "I;16"
_ORIENTATION_TAG = 0x0112
_START_OF_IMAGE, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_REDUCTIONS = {1: 0, 2: 16, 4: 32, 8: 64}  # the flag of cv2.IMREAD_REDUCED_*, without their order of channels
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error)
_OTHERS = ((4, b"ftypheic", "HEIC"), (4, b"ftypheix", "HEIC"), (4, b"ftypmif1", "HEIF"), (4, b"ftypmsf1", "HEIF"),
           (4, b"ftypavif", "AVIF"), (4, b"ftyp", "a film"), (0, b"8BPS", "PSD"), (0, b"%PDF", "PDF"),
           (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"), (0, b"\xffO\xffQ", "JPEG 2000"),
           (0, b"\xff\x0a", "JPEG XL"), (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"))  # fmt: skip


class RefusedImageError(UserError):
    """An image that may be whole, but is of a kind that is not read."""


def read_image(path: Path, reduction: int = 1) -> Image:
    """Decode a whole image file to (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    `reduction` 2, 4 or 8 gives both sides divided by it, rounded up; JPEGs are then decoded at that scale.
    Greyscale, palette, CMYK and 16-bit files become RGB; transparency is laid over white.
    Raises UserError naming the file when it is missing, truncated or not an image, RefusedImageError when it is of a
    kind that is not read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {_reason(error)}") from None
    return decode_image(data, path, reduction)


def decode_image(data: bytes, name: object, reduction: int = 1) -> Image:
    """Decode an image file's bytes as `read_image` does; `name` is what errors call it."""
    plain = _decode_plain_jpeg(data, reduction)
    if plain is not None:
        return plain
    with _opened(io.BytesIO(data), str(name)) as opened:
        try:
            opened.load()
            image = _as_rgb(_upright(opened))
            return np.array(image.reduce(reduction) if reduction > 1 else image, np.uint8)
        except _BROKEN as error:
            raise UserError(f"{name}: cannot be decoded as an image: {_reason(error)}") from None


def image_size(file: Path | BinaryIO, name: str = "") -> tuple[int, int]:
    """Read (width, height) from the file's header, as `read_image` would return it, without decoding a pixel.

    Raises what `read_image` raises, as far as the header tells.
    """
    with _opened(file, name or str(file)) as opened:
        width, height = opened.size
        return (height, width) if _orientation(opened) >= 5 else (width, height)


def read_levels(path: Path) -> NDArray[np.int64]:
    """The (H, W) numbers of a picture that stands for numbers, such as a mask of objects; 0 is none.

    Greyscale gives its levels, a palette whose first colour is black its indices, other colours R + 256 G + 65536 B, or
    the level where they are grey; where there is transparency, 1 is what is opaque. Raises what `read_image` raises.
    """
    with _opened(path, str(path)) as opened:
        try:
            opened.load()
            image = _upright(opened)
            if image.mode in ("1", "L") or image.mode.startswith(_SIXTEEN_BITS) or _starts_black(image):
                return np.asarray(image).astype(np.int64)
            rgba = np.asarray(image.convert("RGBA")).astype(np.int64)
        except _BROKEN as error:
            raise UserError(f"{path}: cannot be decoded as an image: {_reason(error)}") from None
    if rgba[..., 3].min() < 255:
        return (rgba[..., 3] > 127).astype(np.int64)
    grey = (rgba[..., :3] == rgba[..., :1]).all()
    return rgba[..., 0] if grey else rgba[..., :3] @ np.array([1, 256, 65536])


def _starts_black(image: PillowImage.Image) -> bool:
    return image.mode == "P" and (image.getpalette("RGB") or [0])[:3] == [0, 0, 0]


@contextmanager
def _opened(file: Path | BinaryIO, name: str) -> Iterator[PillowImage.Image]:
    """The file's header, read and judged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd EXIF blocks; the pixels decide here
        try:
            opened = PillowImage.open(file, formats=FORMATS)
        except FileNotFoundError:
            raise UserError(f"{name}: no such file") from None
        except PillowImage.DecompressionBombError as error:
            raise RefusedImageError(f"{name}: refused: {_reason(error)}") from None
        except UnidentifiedImageError:
            kind = _other_format(file)
            if kind:
                raise RefusedImageError(f"{name}: refused: {kind} is not read; convert it to JPEG or PNG") from None
            raise UserError(f"{name}: not an image, or a damaged one") from None
        except _BROKEN as error:
            raise UserError(f"{name}: not an image: {_reason(error)}") from None
        with opened:
            refusal = _refusal(opened)
            if refusal:
                raise RefusedImageError(f"{name}: refused: {refusal}")
            yield opened


def _refusal(opened: PillowImage.Image) -> str:
    """Why an image is not read, or ""."""
    width, height = opened.size
    if width * height > MAX_PIXELS:
        return f"{width} x {height} px are more than {MAX_PIXELS // 1_000_000} million"
    if opened.mode not in _MODES and not opened.mode.startswith(_SIXTEEN_BITS):
        return f"pixels of mode {opened.mode}; convert it to grey or RGB of 8 or 16 bits"
    if opened.format != "MPO" and _is_animated(opened):  # an MPO is a photograph with previews behind it
        return f"a {opened.format} of several pictures; save the one that the boxes are of"
    return ""


def _is_animated(opened: PillowImage.Image) -> bool:
    try:
        return bool(getattr(opened, "is_animated", False))
    except _BROKEN:  # cut off behind the header: decoding will say so
        return False


def _other_format(file: Path | BinaryIO) -> str:
    """The name of a known format that is not read, or "", by the file's first bytes."""
    try:
        if isinstance(file, Path):
            with file.open("rb") as opened:
                start = opened.read(16)
        else:
            file.seek(0)
            start = file.read(16)
    except OSError:
        return ""
    return next((kind for place, magic, kind in _OTHERS if start[place:].startswith(magic)), "")


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
            plain = bits == 8 and channels in (1, 3) and 0 < height * width <= MAX_PIXELS
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
    if image.mode.startswith(_SIXTEEN_BITS):  # convert() would clip it to white
        levels = np.asarray(image).astype(np.float64) / 257
        return PillowImage.fromarray(np.clip(levels.round(), 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = PillowImage.new("RGBA", rgba.size, (255, 255, 255, 255))
        return PillowImage.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _reason(error: BaseException) -> str:
    """Return an error's message without the name of the in-memory file that Pillow appends."""
    return one_line(error).split("<_io.")[0].strip() or type(error).__name__
