"""Image files opened by their header, which alone decides whether a file is refused.

More than MAX_PIXELS would fill the memory; in an animation or a file of several pages nothing says which picture the
boxes belong to; floats, 32-bit integers and LAB have no agreed conversion to RGB; other formats than FORMATS are not
supported.
"""

import io
import struct
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from pbe.dataset.png_text import is_png, without_text
from pbe.errors import UserError, one_line

MAX_PIXELS = 100_000_000  # 10,000 x 10,000; 300 MB as RGB
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, struct.error)  # what Pillow raises on a damaged file

_MODES = frozenset(("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"))
_SIXTEEN_BITS = "I;16"
_ORIENTATION_TAG = 0x0112
_OTHER_FORMATS = ((4, b"ftypheic", "HEIC"), (4, b"ftypheix", "HEIC"), (4, b"ftypmif1", "HEIF"),
                  (4, b"ftypmsf1", "HEIF"), (4, b"ftypavif", "AVIF"), (4, b"ftyp", "a film"),
                  (0, b"8BPS", "PSD"), (0, b"%PDF", "PDF"), (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
                  (0, b"\xffO\xffQ", "JPEG 2000"), (0, b"\xff\x0a", "JPEG XL"),
                  (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"))  # fmt: skip


class RefusedImageError(UserError):
    """The file may be intact, but the project does not support images of its kind."""


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


def read_bytes_of(path: Path) -> bytes:
    """Return a file's bytes; raises UserError naming the file when it is missing or cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(name: object, error: OSError) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"{name}: no such file")
    return UserError(f"{name}: cannot be read: {(error.strerror or str(error)).lower()}")


def orientation_of(opened: PillowImage.Image) -> int:
    """Return the EXIF orientation, 1..8; 1 when there is none or it cannot be read."""
    try:
        value = opened.getexif().get(_ORIENTATION_TAG, 1)
    except (*DAMAGED, KeyError, TypeError):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright(opened: PillowImage.Image) -> PillowImage.Image:
    """Return the image turned as its EXIF orientation says."""
    if orientation_of(opened) == 1:
        return opened
    return ImageOps.exif_transpose(opened)


def is_sixteen_bit(image: PillowImage.Image) -> bool:
    """Return whether the pixels are 16-bit levels, which Pillow clips when it converts them."""
    return image.mode.startswith(_SIXTEEN_BITS)


def reason_of(error: BaseException) -> str:
    """Return an error's message without the name of the in-memory file that Pillow appends."""
    return one_line(error).split("<_io.")[0].strip() or type(error).__name__
