"""Images made smaller as they arrive: 561 GB of train images become what training needs.

A shrunk JPEG carries, as its comment, the MD5 of the object it came from, how it was made, and the MD5 of its own other
bytes: a later run knows it to be whole, asks the source whether it still holds that object, and fetches it again after
a change of the settings.
"""

import hashlib
import io
import os
import struct
from pathlib import Path

from PIL import Image as PillowImage

from pbe.data.images import image_size, read_image
from pbe.data.stores import hash_file

_START, _COMMENT = b"\xff\xd8", b"\xff\xfe"


def shrink(path: Path, target: Path, short_side_px: int, quality: int, md5: str) -> bool:
    """Write the image of `path` to `target` as an upright RGB JPEG whose shorter side is `short_side_px`.

    Returns False, and writes nothing, where the image is no larger than that or cannot be decoded (curation says so).
    `md5` is that of the object it came from.
    """
    width, height = image_size(path)
    if min(width, height) <= short_side_px:
        return False
    try:
        image = PillowImage.fromarray(read_image(path))
    except ValueError:
        return False
    scale = short_side_px / min(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    encoded = io.BytesIO()
    small = image.resize(size, PillowImage.Resampling.LANCZOS, reducing_gap=3.0)
    small.save(encoded, "JPEG", quality=quality)
    content = encoded.getvalue()
    comment = _comment(md5, short_side_px, quality, content)
    part = target.with_name(target.name + ".small")
    part.write_bytes(_START + _COMMENT + struct.pack(">H", len(comment) + 2) + comment + content[2:])
    os.replace(part, target)
    return True


def source_md5(path: Path, short_side_px: int | None, quality: int) -> str:
    """The MD5 of the object that a stored image came from; its own where it is not what these settings would leave."""
    content = path.read_bytes()
    if short_side_px is not None and content[:4] == _START + _COMMENT:
        end = 4 + int.from_bytes(content[4:6])
        comment = content[6:end]
        md5 = comment[5:37].decode("latin-1")
        if comment == _comment(md5, short_side_px, quality, _START + content[end:]):
            return md5
    return hash_file(path)[1]


def _comment(md5: str, short_side_px: int, quality: int, content: bytes) -> bytes:
    own = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return f"from {md5} short_side_px={short_side_px} quality={quality} md5={own}".encode("latin-1")
