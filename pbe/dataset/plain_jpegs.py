"""Plain JPEGs: complete, upright, of one or three 8-bit channels, as most photographs are. OpenCV decodes them."""

import io
import struct
import warnings

import cv2
import numpy as np
from PIL import Image as PillowImage

from pbe.dataset.opened_images import DAMAGED, MAX_PIXELS, orientation_of
from pbe.types import Image

_START_OF_IMAGE, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_REDUCTIONS = {1: 0, 2: 16, 4: 32, 8: 64}  # the flag of cv2.IMREAD_REDUCED_*, without their channel order


def decode_plain_jpeg(data: bytes, reduction: int) -> Image | None:
    """Decode a complete, upright JPEG of one or three 8-bit channels; return None for any other file."""
    size = plain_jpeg_size(data)
    if size is None:
        return None
    flags = _JPEG_REDUCTIONS[reduction] | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None or decoded.shape != (-(-size[0] // reduction), -(-size[1] // reduction), 3):
        return None
    return np.asarray(decoded, np.uint8)


def plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
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
                return orientation_of(opened) == 1
    except DAMAGED:
        return False
