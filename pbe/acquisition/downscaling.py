"""Reduces images as they arrive, because OpenImages' 561 GB of train images are larger than training needs.

The comment of a reduced JPEG holds the MD5 of the source's object, the settings, and the MD5 of the JPEG's other bytes.
From it a later run sees that the file is complete, asks the source whether the object has changed, and downloads it
again when the settings have changed.
"""

import hashlib
import io
import struct

from PIL import Image as PillowImage

from pbe.dataset.images import decode_image, image_size
from pbe.errors import UserError

_START, _COMMENT = b"\xff\xd8", b"\xff\xfe"


def shrink(content: bytes, short_side_px: int, quality: int, md5: str) -> bytes | None:
    """Return the image file `content` as an upright RGB JPEG whose shorter side is `short_side_px`.

    Returns None when the image is not larger or cannot be decoded (curation reports it). `md5` is the MD5 of the
    source's object.
    """
    try:
        width, height = image_size(io.BytesIO(content), md5)
        if min(width, height) <= short_side_px:
            return None
        image = PillowImage.fromarray(decode_image(content, md5))
    except UserError:
        return None
    scale = short_side_px / min(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    encoded = io.BytesIO()
    small = image.resize(size, PillowImage.Resampling.LANCZOS, reducing_gap=3.0)
    small.save(encoded, "JPEG", quality=quality)
    plain = encoded.getvalue()
    comment = _comment(md5, short_side_px, quality, plain)
    return _START + _COMMENT + struct.pack(">H", len(comment) + 2) + comment + plain[2:]


def source_md5(content: bytes, short_side_px: int | None, quality: int) -> str:
    """Return the MD5 of the source's object for a stored image.

    Unless the image was reduced with these settings and is intact, that is the MD5 of `content` itself.
    """
    if short_side_px is not None and content[:4] == _START + _COMMENT:
        end = 4 + int.from_bytes(content[4:6])
        comment = content[6:end]
        md5 = comment[5:37].decode("latin-1")
        if comment == _comment(md5, short_side_px, quality, _START + content[end:]):
            return md5
    return md5_of(content)


def md5_of(content: bytes) -> str:
    """Return the MD5 of `content` in hexadecimal, as S3 gives it in an ETag."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _comment(md5: str, short_side_px: int, quality: int, content: bytes) -> bytes:
    own = md5_of(content)
    return f"from {md5} short_side_px={short_side_px} quality={quality} md5={own}".encode("latin-1")
