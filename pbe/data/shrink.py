"""Images made smaller as they arrive: 561 GB of train images become what training needs.

A shrunk JPEG carries, as its comment, the MD5 of the object it came from and how it was made, so that a later run asks
the source whether it still holds that object, and fetches it again after a change of the settings.
"""

import os
from pathlib import Path

from PIL import Image as PillowImage

from pbe.data.images import image_size, read_image
from pbe.data.stores import hash_file

JPEG_MARK = b"\xff\xd8\xff"


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
    small = image.resize(size, PillowImage.Resampling.LANCZOS, reducing_gap=3.0)
    part = target.with_name(target.name + ".small")
    small.save(part, "JPEG", quality=quality, comment=_comment(md5, short_side_px, quality))
    os.replace(part, target)
    return True


def source_md5(path: Path, short_side_px: int | None, quality: int) -> str:
    """The MD5 of the object that a stored image came from, as far as these settings would have left it so."""
    if short_side_px is not None:
        with path.open("rb") as file:
            start = file.read(3)
        if start == JPEG_MARK:
            with PillowImage.open(path) as opened:
                words = opened.info.get("comment", b"").split()
            if len(words) == 4 and words == _comment(words[1].decode("latin-1"), short_side_px, quality).split():
                return str(words[1].decode("latin-1"))
    return hash_file(path)[1]


def _comment(md5: str, short_side_px: int, quality: int) -> bytes:
    return f"from {md5} short_side_px={short_side_px} quality={quality}".encode("latin-1")
