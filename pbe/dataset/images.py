"""Image files in and out: whatever a file holds, the project gets (H, W, 3) uint8 RGB, upright.

OpenCV decodes plain JPEGs; Pillow decodes every other file. Both use libjpeg-turbo and return the same bits, but OpenCV
writes them straight into the array, which saves a copy.

Masks (see `mask_images`) and pictures of numbers pass the same checks. Their header alone decides whether a file is
refused: more than MAX_PIXELS would fill the memory; in an animation or a file of several pages nothing says which
picture the boxes belong to; floats, 32-bit integers and LAB have no agreed conversion to RGB; other formats than
FORMATS are not supported.
"""

import io
import struct
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from pbe.dataset.png_text import is_png, without_text
from pbe.errors import UserError, one_line
from pbe.types import Image

MAX_PIXELS = 100_000_000  # 10,000 x 10,000; 300 MB as RGB
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

_MODES = frozenset(("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"))
_SIXTEEN_BITS = "I;16"
_ORIENTATION_TAG = 0x0112
_START_OF_IMAGE, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_REDUCTIONS = {1: 0, 2: 16, 4: 32, 8: 64}  # the flag of cv2.IMREAD_REDUCED_*, without their channel order
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, struct.error)  # what Pillow raises on a damaged file
_OTHER_FORMATS = ((4, b"ftypheic", "HEIC"), (4, b"ftypheix", "HEIC"), (4, b"ftypmif1", "HEIF"),
                  (4, b"ftypmsf1", "HEIF"), (4, b"ftypavif", "AVIF"), (4, b"ftyp", "a film"),
                  (0, b"8BPS", "PSD"), (0, b"%PDF", "PDF"), (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
                  (0, b"\xffO\xffQ", "JPEG 2000"), (0, b"\xff\x0a", "JPEG XL"),
                  (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"))  # fmt: skip


class RefusedImageError(UserError):
    """The file may be intact, but the project does not support images of its kind."""


def read_image(path: Path, reduction: int = 1) -> Image:
    """Decode a complete image file to (H, W, 3) uint8 RGB, upright as its EXIF orientation says.

    With `reduction` 2, 4 or 8 both sides are divided by it and rounded up; JPEGs are then decoded at that scale.
    Greyscale, palette, CMYK and 16-bit files become RGB; transparent pixels are composited over white.
    Raises UserError naming the file when it is missing, truncated or not an image, and RefusedImageError when its kind
    is not supported.
    """
    return decode_image(read_bytes_of(path), path, reduction)


def decode_image(data: bytes, name: object, reduction: int = 1) -> Image:
    """Decode the bytes of an image file as `read_image` does; errors call the image `name`."""
    plain = _decode_plain_jpeg(data, reduction)
    if plain is not None:
        return plain
    image = eight_bits(_load(data, name, to_rgb)).convert("RGB")
    return np.array(image.reduce(reduction) if reduction > 1 else image, np.uint8)


def read_levels(path: Path) -> NDArray[np.int64]:
    """Decode a picture whose pixels are numbers, such as a label image, to (H, W) int64; 0 is the background.

    A greyscale picture gives its levels, and a palette whose first colour is black gives its indices. In other
    pictures a pixel is R + 256 G + 65536 B, or its level when the whole picture is grey; where any pixel is
    transparent, opaque pixels are 1 and all others 0. Raises what `read_image` raises.
    """
    image = _load(read_bytes_of(path), path, _keep_levels)
    if image.mode != "RGBA":
        return np.asarray(image).astype(np.int64)
    rgba = np.asarray(image).astype(np.int64)
    if rgba[..., 3].min() < 255:
        return (rgba[..., 3] > 127).astype(np.int64)
    is_grey = (rgba[..., :3] == rgba[..., :1]).all()
    return rgba[..., 0] if is_grey else rgba[..., :3] @ np.array([1, 256, 65536])


def image_size(file: Path | BinaryIO, name: str = "") -> tuple[int, int]:
    """Return the (width, height) of the image that `read_image` would return, from the file's header alone.

    Raises what `read_image` raises, as far as the header shows it.
    """
    with opened_image(file, name or str(file)) as opened:
        width, height = opened.size
        return (height, width) if _orientation(opened) >= 5 else (width, height)


def image_orientation(path: Path) -> int:
    """Return an image's EXIF orientation, 1..8; raises what `image_size` raises."""
    with opened_image(path, str(path)) as opened:
        return _orientation(opened)


def has_sixteen_bits(path: Path) -> bool:
    """Return whether an image's pixels are 16-bit levels; raises what `image_size` raises."""
    with opened_image(path, str(path)) as opened:
        return is_sixteen_bit(opened)


def encoded_size(data: bytes, name: object) -> tuple[int, int]:
    """Return the (width, height) of the image that `decode_image` would return; raises what `image_size` raises.

    Four times as fast as `image_size` for a plain JPEG, which Pillow does not have to open.
    """
    plain = _plain_jpeg_size(data)
    return (plain[1], plain[0]) if plain else image_size(io.BytesIO(data), str(name))


def read_bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(name: object, error: OSError) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"{name}: no such file")
    return UserError(f"{name}: cannot be read: {(error.strerror or str(error)).lower()}")


def _load(data: bytes, name: object, convert: Callable[[PillowImage.Image], PillowImage.Image]) -> PillowImage.Image:
    """Decode as `_load_once` does; a PNG whose text Pillow refuses is decoded without its text."""
    try:
        return _load_once(data, name, convert)
    except RefusedImageError:
        raise
    except UserError:
        if (shorter := without_text(data)) is data:
            raise
        return _load_once(shorter, name, convert)


def _load_once(
    data: bytes, name: object, convert: Callable[[PillowImage.Image], PillowImage.Image]
) -> PillowImage.Image:
    """Decode the pixels, turn them upright and convert them; `convert` calls Pillow only, whose errors are the file's.

    Raises UserError when the pixels are truncated or damaged, and what `opened_image` raises.
    """
    with opened_image(io.BytesIO(data), str(name)) as opened:
        try:
            opened.load()
            return convert(upright(opened))
        except DAMAGED as error:
            raise UserError(f"{name}: cannot be decoded as an image: {reason_of(error)}") from None


@contextmanager
def opened_image(file: Path | BinaryIO, name: str, more_modes: Collection[str] = ()) -> Iterator[PillowImage.Image]:
    """Open an image by its header; raises UserError when it has none, RefusedImageError when it is not supported.

    `more_modes` names modes of Pillow that the caller converts and `read_image` does not support.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd EXIF blocks, which do not matter to the pixels
        try:
            opened = _open_header(file)
        except PillowImage.DecompressionBombError as error:
            raise RefusedImageError(f"{name}: refused: {reason_of(error)}") from None
        except UnidentifiedImageError:
            other_format = _other_format(file)
            if other_format:
                message = f"{name}: refused: {other_format} is not read; convert it to JPEG or PNG"
                raise RefusedImageError(message) from None
            raise UserError(f"{name}: not an image, or a damaged one") from None
        except DAMAGED as error:
            if isinstance(error, OSError) and error.errno:
                raise _unreadable(name, error) from None
            raise UserError(f"{name}: not an image: {reason_of(error)}") from None
        with opened:
            refusal = _refusal(opened, more_modes)
            if refusal:
                raise RefusedImageError(f"{name}: refused: {refusal}")
            yield opened


def _open_header(file: Path | BinaryIO) -> PillowImage.Image:
    """Open an image by its header; a PNG whose text Pillow refuses is opened without its text."""
    try:
        return PillowImage.open(file, formats=FORMATS)
    except ValueError:
        if isinstance(file, Path):
            data = file.read_bytes()
        else:
            file.seek(0)
            data = file.read()
        if not is_png(data):
            raise
        return PillowImage.open(io.BytesIO(without_text(data)), formats=FORMATS)


def _refusal(opened: PillowImage.Image, more_modes: Collection[str]) -> str:
    """Return why an image is not supported, or ""."""
    width, height = opened.size
    if width * height > MAX_PIXELS:
        return f"{width} x {height} px are more than {MAX_PIXELS // 1_000_000} million"
    if opened.mode not in _MODES and opened.mode not in more_modes and not is_sixteen_bit(opened):
        return f"pixels of mode {opened.mode}; convert it to grey or RGB of 8 or 16 bits"
    if opened.format != "MPO" and _is_animated(opened):  # an MPO is a photograph followed by previews of it
        return f"a {opened.format} of several pictures; save the one that the boxes belong to"
    return ""


def _is_animated(opened: PillowImage.Image) -> bool:
    try:
        return bool(getattr(opened, "is_animated", False))
    except DAMAGED:  # truncated after the header: decoding reports it
        return False


def _other_format(file: Path | BinaryIO) -> str:
    """Return the name of a known format that is not supported, or "", by the file's first bytes."""
    try:
        if isinstance(file, Path):
            with file.open("rb") as opened:
                start = opened.read(16)
        else:
            file.seek(0)
            start = file.read(16)
    except OSError:
        return ""
    return next((name for offset, magic, name in _OTHER_FORMATS if start[offset:].startswith(magic)), "")


def _decode_plain_jpeg(data: bytes, reduction: int) -> Image | None:
    """Decode a complete, upright JPEG of one or three 8-bit channels; return None for any other file."""
    size = _plain_jpeg_size(data)
    if size is None:
        return None
    flags = _JPEG_REDUCTIONS[reduction] | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None or decoded.shape != (-(-size[0] // reduction), -(-size[1] // reduction), 3):
        return None
    return np.asarray(decoded, np.uint8)


def _plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) from the frame header of a plain JPEG, None for any other file.

    The header is parsed in this module because neither OpenCV nor Pillow offers both the channels' precision and the
    size without decoding or opening the file again.
    """
    if not data.startswith(_START_OF_IMAGE) or _END_OF_IMAGE not in data[-32:]:
        return None
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0" and not _is_upright(data):
            return None
        if marker in _FRAME_MARKERS:
            bits, height, width, channels = struct.unpack(">BHHB", data[at + 4 : at + 10])
            is_plain = bits == 8 and channels in (1, 3) and 0 < height * width <= MAX_PIXELS
            return (height, width) if is_plain else None
        at += 2 + length
    return None


def _is_upright(data: bytes) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PillowImage.open(io.BytesIO(data)) as opened:
                return _orientation(opened) == 1
    except DAMAGED:
        return False


def _orientation(opened: PillowImage.Image) -> int:
    """Return the EXIF orientation, 1..8; 1 when there is none or it cannot be read."""
    try:
        value = opened.getexif().get(_ORIENTATION_TAG, 1)
    except (*DAMAGED, KeyError, TypeError):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright(opened: PillowImage.Image) -> PillowImage.Image:
    if _orientation(opened) == 1:
        return opened
    return ImageOps.exif_transpose(opened)


def is_sixteen_bit(image: PillowImage.Image) -> bool:
    return image.mode.startswith(_SIXTEEN_BITS)


def to_rgb(image: PillowImage.Image) -> PillowImage.Image:
    """Convert to RGB over white; 16-bit pixels, which Pillow would clip, are left to `eight_bits`."""
    if is_sixteen_bit(image):
        return image
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = PillowImage.new("RGBA", rgba.size, (255, 255, 255, 255))
        return PillowImage.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _keep_levels(image: PillowImage.Image) -> PillowImage.Image:
    """Convert to RGBA, unless a pixel is a level or an index of a palette that begins with black."""
    starts_black = image.mode == "P" and (image.getpalette("RGB") or [0])[:3] == [0, 0, 0]
    return image if image.mode in ("1", "L") or is_sixteen_bit(image) or starts_black else image.convert("RGBA")


def eight_bits(image: PillowImage.Image) -> PillowImage.Image:
    """Scale 16-bit levels to 8 bits, rounded; return any other image unchanged."""
    if not is_sixteen_bit(image):
        return image
    levels = np.asarray(image).astype(np.float64) / 257
    return PillowImage.fromarray(np.clip(levels.round(), 0, 255).astype(np.uint8))


def reason_of(error: BaseException) -> str:
    """Return an error's message without the name of the in-memory file that Pillow appends."""
    return one_line(error).split("<_io.")[0].strip() or type(error).__name__
